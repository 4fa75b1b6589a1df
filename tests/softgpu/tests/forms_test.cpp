// Which forms of instructions are in the table: one at a time, as nvcc or a hand writes it.
#include <gtest/gtest.h>

#include <string>

#include "machine/program.hpp"
#include "ptx/module.hpp"

namespace softgpu {
namespace forms_test {

/// Empty where the instruction decodes, else the sentence that refuses it.
std::string decoded(std::string const& instruction) {
  std::string const text =
      ".version 9.0\n.target sm_90a\n.address_size 64\n"
      ".visible .entry kernel(.param .u64 out)\n{\n"
      ".reg .pred p, q;\n.reg .b8 c<4>;\n.reg .b16 h<20>;\n.reg .b32 r<40>;\n.reg .f32 f<40>;\n"
      ".reg .b64 d<20>;\n.reg .f64 g<20>;\n.reg .b128 x<3>;\n.shared .align 16 .b8 s[256];\n"
      "@p " +
      instruction + "\nret;\n}\n";
  try {
    program module(text);
    return module.find_kernel("kernel") != nullptr ? "" : "no kernel";
  } catch (ptx::error const& e) { return e.what(); }
}

TEST(Forms, TakesWhatCompilersWrite) {
  char const* const instructions[] = {
      "ld.global.nc.L1::no_allocate.L2::128B.v4.f32 {f0, f1, f2, f3}, [d0+16];",
      "ld.global.nc.L1::evict_last.L2::cache_hint.u32 r0, [d0], d1;",
      "ld.relaxed.gpu.global.u64 d0, [d1];",
      "ld.acquire.sys.b32 r0, [d1];",
      "ld.volatile.shared.v2.u32 {r0, r1}, [r2];",
      "ld.shared::cluster.u32 r0, [r1];",
      "ld.const.s8 r0, [d0];",
      "ldu.global.v4.u32 {r0, r1, r2, r3}, [d0];",
      "st.global.L1::no_allocate.v4.b32 [d0], {r0, r1, r2, r3};",
      "st.release.gpu.global.u32 [d0], r0;",
      "st.mmio.relaxed.sys.global.u32 [d0], r0;",
      "ld.global.v8.f32 {f0, f1, f2, f3, f4, f5, f6, f7}, [d0];",
      "prefetch.global.L2::evict_last [d0];",
      "createpolicy.fractional.L2::evict_first.L2::evict_unchanged.b64 d0, 0.5;",
      "createpolicy.range.global.L2::evict_last.L2::evict_unchanged.b64 d0, [d1], r0, r1;",
      "discard.global.L2 [d0], 128;",
      "applypriority.global.L2::evict_normal [d0], 128;",
      "cp.async.ca.shared.global.L2::128B [r0], [d0], 4, r1;",
      "cp.async.cg.shared::cta.global.L2::cache_hint [r0], [d0], 16, d1;",
      "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [r0];",
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [r0], r1, r2;",
      "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [r0], r1;",
      "mbarrier.arrive_drop.noComplete.release.cta.shared.b64 d0, [r0], r1;",
      "atom.global.exch.b128 x0, [d0], x1;",
      "atom.acq_rel.gpu.global.cas.b128 x0, [d0], x1, x2;",
      "atom.add.noftz.f16x2 r0, [d0], r1;",
      "atom.add.release.gpu.u32 r0, [d0], r1;",
      "red.relaxed.gpu.global.add.noftz.bf16x2 [d0], r1;",
      "red.global.add.v4.f32 [d0], {f0, f1, f2, f3};",
      "atom.global.max.noftz.v8.bf16 {h0, h1, h2, h3, h4, h5, h6, h7}, [d0], {h0, h1, h2, h3, h4, "
      "h5, h6, h7};",
      "barrier.cluster.arrive.release.aligned;",
      "barrier.cluster.wait.acquire;",
      "mov.u32 r0, %cluster_ctarank;",
      "mov.u32 r0, %cluster_nctaid.x;",
      "mov.u32 r0, %clusterid.y;",
      "mov.pred q, %is_explicit_cluster;",
      "getctarank.shared::cluster.u32 r0, r1;",
      "griddepcontrol.launch_dependents;",
      "setmaxnreg.dec.sync.aligned.u32 40;",
      "fence.proxy.async.shared::cta;",
      "fence.mbarrier_init.release.cluster;",
      "elect.sync r0|q, 0xffffffff;",
      "redux.sync.max.NaN.f32 f0, f1, r0;",
      "nanosleep.u32 100;",
      "brkpt;",
      "isspacep.const q, d0;",
      "isspacep.param q, d0;",
      "isspacep.shared::cluster q, d0;",
      "cvta.to.shared.u64 d0, d1;",
      "mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64 {g0, g1, g2, g3}, {g4, g5, g6, g7, g8, "
      "g9, "
      "g10, g11}, {g12, g13, g14, g15}, {g0, g1, g2, g3};",
      "wmma.mma.sync.aligned.col.row.m8n32k16.f32.f16 {f0, f1, f2, f3, f4, f5, f6, f7}, {r0, r1, "
      "r2, r3, r4, r5, r6, r7}, {r8, r9, r10, r11, r12, r13, r14, r15}, {r16, r17, r18, r19};",
      "cvt.rn.satfinite.e2m1x2.f32 c0, f0, f1;",
      "max.s32.relu r0, r1, r2;",
      "fma.rn.relu.bf16x2 r0, r1, r2, r3;",
      "lop3.or.b32 _|q, r0, r1, r2, 0xfe, p;",
      "tanh.approx.bf16x2 r0, r1;",
      "ex2.approx.ftz.bf16x2 r0, r1;",
      "ex2.approx.f32.ftz f0, f1;",
      "ld.mmio.relaxed.sys.global.u32 r0, [d0];",
  };
  for (char const* const i : instructions) EXPECT_EQ(decoded(i), "") << i;
}

TEST(Forms, RefusesTheRestByName) {
  struct refused {
    char const* instruction;
    char const* name;
  };
  refused const instructions[] = {
      {"mapa.shared::cluster.u32 r0, r1, 0;", "mapa"},
      {"cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [r0], [d0], r1, [r2];",
       "cp.async.bulk"},
      {"cp.async.ca.shared.global [r0], [d0], 5;", "4, 8 or 16 bytes"},
      {"cvt.rs.f16x2.f32 r0, f0, f1, r1;", "cvt.rs"},
      {"wgmma.fence.sync.aligned;", "wgmma"},
      {"tcgen05.fence::before_thread_sync;", "tcgen05"},
      {"mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {r0, r1, r2, r3}, {r4, r5, r6, r7}, {r8, "
       "r9}, {r0, r1, r2, r3};",
       "m16n8k64"},
      {"mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {f0, f1, f2, f3}, {r4, r5}, {r6, r7}, "
       "{f0, f1, f2, f3}, r8, 0;",
       "mma.sp"},
      {"wmma.load.a.sync.aligned.row.m16n16k16.f16 {r0, r1}, [d0], r2;", "8 registers"},
      {"tex.2d.v4.f32.f32 {f0, f1, f2, f3}, [d0, {f4, f5}];", "tex"},
      {"multimem.ld_reduce.global.add.f32 f0, [d0];", "multimem"},
      {"red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [r0], r1, "
       "[r2];",
       "red.async"},
      {"st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [r0], r1, [r2];", "st.async"},
      {"stacksave.u64 d0;", "stacksave"},
      {"atom.shared.add.s64 d0, [r0], d1;", "atom"},
      {"add.u32 r0, r1, d0;", "64 bits"},
      {"mov.u32 r0, %pm0;", "%pm0"},
      {"min.ftz.xorsign.abs.f32 f0, f1, f2;", "xorsign"},
  };
  for (auto const& [instruction, name] : instructions) {
    std::string const sentence = decoded(instruction);
    EXPECT_NE(sentence, "") << instruction;
    EXPECT_NE(sentence.find(name), std::string::npos) << instruction << "\n  " << sentence;
  }
}

}  // namespace forms_test
}  // namespace softgpu
