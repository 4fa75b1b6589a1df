// Which instruction sets a processor has, which of them isa::best takes, and the reason that it gives: on any
// processor, by what CPUID says of it.
#include <gtest/gtest.h>
#if defined(__linux__)
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "shunt/backend/host/simd/isa.hpp"

namespace shunt {
namespace instructions_test {

#if defined(__x86_64__)
/// A processor that has `widest`, by the bits of the manuals, with the register files saved.
host::processor processor_of(char const* vendor, unsigned family, unsigned model, isa widest) {
  host::processor p{.family = family, .model = model};
  std::memcpy(p.vendor, vendor, std::strlen(vendor));
  if (widest >= isa::avx2) {
    p.leaf1_ecx = 0x38001000u;
    p.leaf7_ebx = 0x128u;
    p.xcr0 = 0x7u;
  }
  if (widest >= isa::avx512) {
    p.leaf7_ebx |= 0xc0030000u;
    p.xcr0 = 0xe7u;
  }
  if (widest >= isa::avx512_vnni) p.leaf7_ecx = 0x800u;
  if (widest >= isa::avx512_bf16) p.leaf7_1_eax = 0x20u;
  if (widest >= isa::amx) {
    p.leaf7_edx = 0x3400000u;
    p.xcr0 = 0x600e7u;
  }
  return p;
}

TEST(Instructions, AreTheFastestOfEachProcessor) {
  constexpr isa bf16 = isa::avx512_bf16, vnni = isa::avx512_vnni;
  struct {
    char const* vendor;
    unsigned family, model;
    isa widest, best;
    char const* reason;  ///< how it begins
  } const known[] = {
      {"AuthenticAMD", 0x19, 0x01, isa::avx2, isa::avx2, "AVX2 is there"},  // Zen 3
      {"AuthenticAMD", 0x19, 0x11, bf16, bf16, "AMD Zen 4: vdpbf16ps multiplies at twice"},
      {"AuthenticAMD", 0x19, 0x61, bf16, bf16, "AMD Zen 4: "},
      {"AuthenticAMD", 0x1a, 0x02, bf16, bf16, "AMD Zen 5: vdpbf16ps multiplies at twice"},
      {"AuthenticAMD", 0x1b, 0x00, bf16, bf16, "AMD, a family not measured: taken as Zen 5"},
      {"GenuineIntel", 6, 0x3c, isa::avx2, isa::avx2, "AVX2 is there"},  // Haswell
      {"GenuineIntel", 6, 0x55, isa::avx512, isa::avx512, "AVX-512 is there; VNNI is not"},
      {"GenuineIntel", 6, 0x6a, vnni, vnni, "AVX-512 with VNNI is there; vdpbf16ps is not"},
      {"GenuineIntel", 6, 0x55, bf16, vnni, "Intel Cooper Lake: vdpbf16ps is not measured"},
      {"GenuineIntel", 6, 0x8f, bf16, vnni, "Intel Sapphire Rapids: vdpbf16ps multiplies at half"},
      {"GenuineIntel", 6, 0xcf, bf16, vnni, "Intel Emerald Rapids: vdpbf16ps multiplies at half"},
      {"GenuineIntel", 6, 0xad, bf16, vnni, "Intel Granite Rapids: taken as Sapphire Rapids"},
      {"GenuineIntel", 6, 0xae, bf16, vnni, "Intel Granite Rapids: "},
      {"GenuineIntel", 6, 0x8f, isa::amx, vnni,
       "Intel Sapphire Rapids: vdpbf16ps multiplies at half"},
      {"GenuineIntel", 19, 0x01, isa::amx, vnni,
       "Intel, a model not measured: "},  // tiles are asked for by name
      {"GenuineIntel", 19, 0x01, bf16, vnni, "Intel, a model not measured: "},
      {"GenuineIntel", 19, 0x8f, bf16, vnni, "Intel, a model not measured: "},
      {"CentaurHauls", 7, 0x5b, bf16, vnni, "a vendor not measured: bf16 is widened"},
      {"", 0, 0, isa::portable, isa::portable, "AVX2 with FMA, F16C and BMI2 is not there"}};
  for (auto const& k : known) {
    SCOPED_TRACE(k.reason);
    host::processor const p = processor_of(k.vendor, k.family, k.model, k.widest);
    EXPECT_EQ(host::widest_isa(p, 512), k.widest);
    instruction_choice const choice = host::choose_instructions(p, k.widest);
    EXPECT_EQ(choice.instructions, k.best);
    EXPECT_EQ(std::string(choice.reason).find(k.reason), 0u) << choice.reason;
    EXPECT_EQ(host::limits_of(p, k.widest, isa::best).available, k.widest);
    // SHUNT_ISA comes first: all that the processor has can be asked for.
    for (isa asked : {isa::portable, isa::avx2, isa::avx512, vnni, bf16, isa::amx}) {
      auto const limits = host::limits_of(p, k.widest, asked);
      EXPECT_EQ(limits.available, std::min(asked, k.widest));
      EXPECT_EQ(limits.best.instructions, std::min(asked, k.widest));
      EXPECT_EQ(std::string(limits.best.reason).find("SHUNT_ISA asks for "), 0u);
    }
  }
}

TEST(Instructions, NeedTheOperatingSystemAndTheBuild) {
  host::processor const whole = processor_of("AuthenticAMD", 0x1a, 2, isa::avx512_bf16);
  EXPECT_EQ(host::widest_isa(whole, 256), isa::avx2);
  EXPECT_EQ(host::widest_isa(whole, 1), isa::portable);
  host::processor p = whole;
  p.xcr0 = 0x7u;  // no upper halves, no masks
  EXPECT_EQ(host::widest_isa(p, 512), isa::avx2);
  p.xcr0 = 0x3u;
  EXPECT_EQ(host::widest_isa(p, 512), isa::portable);
  for (unsigned bit : {12u, 27u, 28u, 29u}) {  // FMA, OSXSAVE, AVX, F16C
    p = whole;
    p.leaf1_ecx &= ~(1u << bit);
    EXPECT_EQ(host::widest_isa(p, 512), isa::portable) << bit;
  }
  for (unsigned bit : {3u, 5u, 8u}) {  // BMI, AVX2, BMI2
    p = whole;
    p.leaf7_ebx &= ~(1u << bit);
    EXPECT_EQ(host::widest_isa(p, 512), isa::portable) << bit;
  }
  for (unsigned bit : {16u, 17u, 30u, 31u}) {  // F, DQ, BW, VL
    p = whole;
    p.leaf7_ebx &= ~(1u << bit);
    EXPECT_EQ(host::widest_isa(p, 512), isa::avx2) << bit;
  }
}

TEST(Instructions, TilesNeedAllTheirBits) {
  host::processor const whole = processor_of("GenuineIntel", 6, 0x8f, isa::amx);
  ASSERT_EQ(host::widest_isa(whole, 512), isa::amx);
  EXPECT_EQ(host::widest_isa(whole, 256), isa::avx2);
  for (unsigned bit : {22u, 24u, 25u}) {  // AMX-BF16, AMX-TILE, AMX-INT8
    host::processor p = whole;
    p.leaf7_edx &= ~(1u << bit);
    EXPECT_EQ(host::widest_isa(p, 512), isa::avx512_bf16) << bit;
  }
  for (unsigned bit : {17u, 18u}) {  // what the operating system saves
    host::processor p = whole;
    p.xcr0 &= ~(1u << bit);
    EXPECT_EQ(host::widest_isa(p, 512), isa::avx512_bf16) << bit;
  }
  host::processor p = whole;
  p.leaf7_1_eax = 0;
  EXPECT_EQ(host::widest_isa(p, 512), isa::avx512_vnni);
}

// The compiler's own functions read the same processor.
TEST(Instructions, OfThisProcessorAreRead) {
  __builtin_cpu_init();
  host::processor const here = host::this_processor();
  EXPECT_EQ(std::string(here.vendor) == "AuthenticAMD", __builtin_cpu_is("amd") != 0);
  EXPECT_EQ(std::string(here.vendor) == "GenuineIntel", __builtin_cpu_is("intel") != 0);
  EXPECT_GT(here.family, 0u);
  isa want = isa::portable;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) want = isa::avx2;
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    want = isa::avx512;
    if (__builtin_cpu_supports("avx512vnni")) want = isa::avx512_vnni;
    if (__builtin_cpu_supports("avx512bf16")) want = isa::avx512_bf16;
  }
  isa const widest = host::widest_isa(here, 512);
  EXPECT_EQ(widest == isa::amx ? isa::avx512_bf16 : widest, want);
}

#if defined(__linux__)
// Linux refuses tiles to a process with an alternate signal stack that cannot hold them, and the next best runs: a new
// process, as the permission is asked for once and children inherit it.
TEST(Instructions, WithoutPermissionTheNextBestRuns) {
  constexpr char const* name = "SHUNT_TEST_SMALL_SIGNAL_STACK";
  if (std::getenv(name) != nullptr) {
    static char small[4096];
    stack_t const stack{.ss_sp = small, .ss_flags = 0, .ss_size = sizeof small};
    if (sigaltstack(&stack, nullptr) != 0)
      std::_Exit(77);  // the processor's state needs more in any case
    errno = 0;
    std::_Exit(host::available_isa() < isa::amx && errno == 0 && check::policy(on_host{}).ok() ? 0
                                                                                               : 1);
  }
  pid_t const child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv(name, "1", 1);
    unsetenv("SHUNT_ISA");
    execl("/proc/self/exe", "instructions_test",
          "--gtest_filter=Instructions.WithoutPermissionTheNextBestRuns", "--gtest_brief=1",
          nullptr);
    _exit(2);
  }
  int how = 0;
  ASSERT_EQ(waitpid(child, &how, 0), child);
  ASSERT_TRUE(WIFEXITED(how));
  EXPECT_TRUE(WEXITSTATUS(how) == 0 || WEXITSTATUS(how) == 77) << WEXITSTATUS(how);
}
#endif
#endif

TEST(Instructions, AreChosenWithAReason) {
  instruction_choice const best = instruction_choice_of(on_host{});
  EXPECT_EQ(best.instructions, instructions_of(on_host{}));
  EXPECT_LE(best.instructions, host::available_isa());
  EXPECT_GT(std::strlen(best.reason), 10u);
  instruction_choice const asked = instruction_choice_of({.instructions = isa::portable});
  EXPECT_EQ(asked.instructions, isa::portable);
  EXPECT_STREQ(asked.reason, "on_host.instructions asks for it");
}

}  // namespace instructions_test
}  // namespace shunt
