// The parser on real nvcc output (made at build time), on small texts, and on broken ones.
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

#include "machine/form.hpp"
#include "ptx/module.hpp"

namespace softgpu::ptx {
namespace parser_test {

std::string read_file(char const* path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

constexpr char head[] = ".version 9.0\n.target sm_80\n.address_size 64\n";

TEST(Parser, ReadsWhatNvccWrites) {
  module const m = parse(read_file(SOFTGPU_SAMPLE_PTX));
  EXPECT_EQ(m.target, "sm_80");
  std::size_t entries = 0, instructions = 0, located = 0;
  for (function const& f : m.functions) {
    entries += f.is_entry;
    instructions += f.body.size();
    for (instruction const& i : f.body) {
      located += i.location >= 0;
      EXPECT_NE(instruction_table::get().find(i), nullptr) << i.text;
    }
  }
  EXPECT_GE(entries, 7u);
  EXPECT_GT(instructions, 200u);
  EXPECT_GT(located, instructions / 2);
}

TEST(Parser, FunctionsRegistersAndOperands) {
  module const m = parse(std::string(head) + R"(
.global .align 4 .u32 counter = 7;
.visible .entry k(.param .u64 k_param_0, .param .align 8 .b8 k_param_1[40])
.maxntid 256, 1, 1
{
  .reg .pred %p<3>;
  .reg .b32 %r<10>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [k_param_1+8];
$L1:
  @!%p1 bra $L1;
  shfl.sync.bfly.b32 %r1|%p2, %r2, 16, 31, -1;
  ld.global.v2.u32 {%r3, _}, [%rd1+-16];
  { .reg .b32 %r; mov.u32 %r, 0f3F800000; }
  mov.u64 %rd2, counter+4;
  ret;
})");
  ASSERT_EQ(m.functions.size(), 1u);
  function const& f = m.functions[0];
  EXPECT_EQ(f.directives.at("maxntid"), (std::vector<std::int64_t>{256, 1, 1}));
  EXPECT_EQ(f.parameters[1].bytes, 40);
  EXPECT_EQ(f.registers.size(), 3u + 10 + 4 + 1);
  EXPECT_EQ(f.labels.at("$L1"), 1);
  EXPECT_TRUE(f.body[1].guard_negated);
  EXPECT_EQ(f.body[2].operands[0].kind, operand_kind::pair);
  EXPECT_EQ(f.body[2].operands[4].value, -1);
  EXPECT_EQ(f.body[3].operands[0].parts[1].kind, operand_kind::sink);
  EXPECT_EQ(f.body[3].operands[1].value, -16);
  EXPECT_EQ(f.body[4].operands[1].value, 0x3f800000);
  EXPECT_EQ(f.register_names[std::size_t(f.body[4].operands[0].index)], "%r");
  EXPECT_EQ(f.body[5].operands[1].value, 4);
}

TEST(Parser, InitializersBranchTablesAndPrototypes) {
  module const m = parse(std::string(head) + R"(
.const .align 4 .b8 scale[8] = {0, 0, 128, 63};
.global .align 8 .u64 names[2] = {generic(text), generic(text)+2};
.global .align 1 .b8 text[3] = {97, 98};
.global .align 1 .b8 bytes[2] = {0xFF(text), 0xFF00(text)};
.func (.param .b32 r) f(.param .b32 a)
{
  .reg .b32 %r<3>; .reg .b64 %rd<2>;
  table: .branchtargets A, B;
  brx.idx %r1, table;
A:
  proto : .callprototype (.param .b32 _) _ (.param .b32 _);
  call (r), %rd1, (a), proto;
B:
  ret;
})");
  EXPECT_EQ(m.variables[0].initial[2], 128);
  EXPECT_EQ(m.variables[1].relocations.size(), 2u);
  EXPECT_TRUE(m.variables[1].relocations[0].generic);
  EXPECT_EQ(m.variables[3].relocations[1].shift, 8);
  EXPECT_EQ(m.functions[0].branch_targets.at("table").size(), 2u);
  EXPECT_EQ(m.functions[0].prototypes.count("proto"), 1u);
}

TEST(Parser, SaysWhereAndWhyItFails) {
  auto const reason = [](std::string const& text) {
    try {
      parse(std::string(head) + text);
    } catch (error const& e) { return std::string(e.what()); }
    return std::string("no error");
  };
  EXPECT_EQ(reason(".func f() { @%p1 bra L; }"), "PTX line 4: unknown register %p1");
  EXPECT_EQ(reason(".func f() {\n add.s32 1, 2"),
            "PTX line 5: expected ';' after an instruction, found 'end of file'");
  EXPECT_EQ(reason(".tex .u64 t;"), "PTX line 4: unsupported directive .tex");
  EXPECT_EQ(reason(".global .u37 x;"),
            "PTX line 4: unsupported type or attribute .u37 in a declaration");
  EXPECT_EQ(reason("/* never closed"), "PTX line 4: a comment is never closed");
  EXPECT_EQ(reason(".func f() { L: L: ret; }"), "PTX line 4: label L is defined twice");
}

TEST(Parser, BrokenTextNeverCrashes) {
  std::string const good = read_file(SOFTGPU_SAMPLE_PTX);
  ASSERT_GT(good.size(), 1000u);
  std::mt19937 rng(20);
  constexpr char spice[] = "{}()[];,.:%@|!-+<>\"0x_ \n";
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    std::string text = good;
    int const edits = 1 + int(rng() % 4);
    for (int e = 0; e < edits; ++e) {
      std::size_t const at = rng() % text.size();
      switch (rng() % 4) {
        case 0: text[at] = spice[rng() % (sizeof spice - 1)]; break;
        case 1: text.erase(at, 1 + rng() % 40); break;
        case 2: text.insert(at, text.substr(rng() % text.size(), rng() % 60)); break;
        default: text.resize(at + 1); break;
      }
    }
    try {
      parse(std::move(text));
    } catch (error const&) { ++refused; }
  }
  EXPECT_GT(refused, 100);
}

TEST(Parser, TheTableReadsItsOwnSyntax) {
  auto const found = [](char const* statement) {
    module const m = parse(std::string(head) + ".func f() { .reg .b32 %r<9>; .reg .pred %p<3>; " +
                           statement + " }");
    return instruction_table::get().find(m.functions[0].body[0]) != nullptr;
  };
  EXPECT_TRUE(found("add.s32 %r1, %r2, %r3;"));
  EXPECT_TRUE(found("add.sat.s32 %r1, %r2, %r3;"));
  EXPECT_FALSE(found("add.sat.u32 %r1, %r2, %r3;"));
  EXPECT_FALSE(found("add.s32 %r1, %r2;"));
  EXPECT_TRUE(found("setp.lt.and.u32 %p1, %r1, %r2, %p2;"));
  EXPECT_FALSE(found("setp.zz.u32 %p1, %r1, %r2;"));
  EXPECT_FALSE(found("frobnicate.u32 %r1;"));
}

}  // namespace parser_test
}  // namespace softgpu::ptx
