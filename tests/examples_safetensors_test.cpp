#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "../examples/support/checkpoint/safetensors.hpp"
#include "support/safetensors_case.hpp"

namespace examples_safetensors_test {

namespace fs = std::filesystem;

class Safetensors : public safetensors_case::folder_of_files {};

TEST_F(Safetensors, GivesBackEveryBitItWasGiven) {
  write_sample(place("sample"));
  checkpoint::safetensors_file file(place("sample"));
  file.verify(true);
  EXPECT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.metadata().at("step"), "41");
  EXPECT_EQ(file.metadata().at("text"), "ü \"quoted\"\n");
  float weights[6];
  file.read("weights", "F32", std::vector<std::uint64_t>{2, 3}, weights);
  EXPECT_EQ(std::memcmp(weights, weights_, sizeof weights), 0);
  std::int64_t step = 0;
  file.read("step", "I64", {}, &step);
  EXPECT_EQ(step, 41);
  char text[3];
  file.read("b.bytes", "U8", std::vector<std::uint64_t>{3}, text);
  EXPECT_EQ(std::string(text, 3), "abc");
  file.read("none", "F32", std::vector<std::uint64_t>{0, 7}, nullptr);
}

TEST_F(Safetensors, AlignsTensorsToTheirElements) {
  write_sample(place("sample"));
  std::string const bytes = content(place("sample"));
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  checkpoint::safetensors_file file(place("sample"));
  for (auto const& [name, entry] : file.tensors()) { EXPECT_TRUE(entry.aligned()) << name; }
}

TEST_F(Safetensors, TheSameContentGivesTheSameFile) {
  write_sample(place("a"));
  write_sample(place("b"));
  EXPECT_EQ(content(place("a")), content(place("b")));
}

TEST_F(Safetensors, ATornFileIsRefusedWhereverItWasTorn) {
  write_sample(place("sample"));
  std::string const whole = content(place("sample"));
  ASSERT_EQ(refusal(whole), "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(refusal(whole.substr(0, size)), "") << "torn after " << size << " bytes";
  }
  EXPECT_NE(refusal(whole + "x"), "") << "with a byte behind its end";
}

TEST_F(Safetensors, AFlippedBitIsNoticedAnywhere) {
  write_sample(place("sample"));
  std::string const whole = content(place("sample"));
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      // Blanks behind the header may become line ends: still the same header.
      bool const blank = at >= 8 && at < 8 + header && whole.find('}', at) > 8 + header;
      if (blank) continue;
      put(place("damaged"), damaged);
      EXPECT_THROW(
          {
            checkpoint::safetensors_file file(place("damaged"));
            file.verify(true);
          },
          lm::problem)
          << "byte " << at << " bit " << bit;
    }
  }
}

TEST_F(Safetensors, ForeignFilesAreRefusedWithASentence) {
  EXPECT_NE(refusal("").find("less than a length"), std::string::npos);
  EXPECT_NE(refusal("PK\3\4 this is something else entirely").find("bytes"), std::string::npos);
  EXPECT_NE(refusal(std::string(64, '\0')).find("does not begin with {"), std::string::npos);
  EXPECT_NE(refusal(file_of("[1,2]  ", 0)).find("does not begin with {"), std::string::npos);
  EXPECT_NE(refusal(file_of("{nonsense", 0)).find("not a JSON object"), std::string::npos);
  EXPECT_THROW(checkpoint::safetensors_file{place("absent")}, lm::problem);
  EXPECT_THROW(checkpoint::safetensors_file{folder_}, lm::problem);
}

TEST_F(Safetensors, HostileHeadersAreRefusedWithASentence) {
  auto const tensor = [](std::string const& dtype, std::string const& shape,
                         std::string const& offsets) {
    return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
           "}}";
  };
  struct {
    char const *what, *sentence;
    std::string bytes;
  } const cases[] = {
      {"a length of 2^64-1", "are allowed", std::string(8, '\xff') + "{}"},
      {"a header longer than allowed", "are allowed",
       std::string("\x01\xe1\xf5\x05\0\0\0\0", 8) + "{}"},
      {"a header longer than the file", "beyond the file", std::string("\x40\0\0\0\0\0\0\0{}", 10)},
      {"offsets beyond the data", "lies at", file_of(tensor("\"U8\"", "[9]", "[0,9]"), 8)},
      {"offsets in reverse", "lies at", file_of(tensor("\"U8\"", "[4]", "[8,4]"), 8)},
      {"offsets near 2^64", "lies at",
       file_of(tensor("\"U8\"", "[2]", "[18446744073709551614,18446744073709551615]"), 8)},
      {"a negative offset", "not a count", file_of(tensor("\"U8\"", "[8]", "[-8,0]"), 8)},
      {"a fractional extent", "not a count", file_of(tensor("\"U8\"", "[8.0]", "[0,8]"), 8)},
      {"an extent beyond 64 bits", "not a count",
       file_of(tensor("\"U8\"", "[99999999999999999999999]", "[0,8]"), 8)},
      {"a product that overflows", "not give",
       file_of(tensor("\"F32\"", "[4294967296,4294967296,2]", "[0,8]"), 8)},
      {"a product that overflows to the right size", "not give",
       file_of(tensor("\"U8\"", "[9223372036854775812,2]", "[0,8]"), 8)},
      {"a size that the shape does not give", "not give",
       file_of(tensor("\"F32\"", "[3]", "[0,8]"), 8)},
      {"a type that is no string", "must have dtype", file_of(tensor("32", "[2]", "[0,8]"), 8)},
      {"three offsets", "two data_offsets", file_of(tensor("\"U8\"", "[8]", "[0,4,8]"), 8)},
      {"a shape that is no list", "not a list", file_of(tensor("\"U8\"", "8", "[0,8]"), 8)},
      {"a tensor that is no object", "must have dtype", file_of(R"({"t":[1]})", 0)},
      {"data that nobody owns", "follow its last tensor", file_of("{}", 8)},
      {"a gap", "overlap or leave a gap", file_of(tensor("\"U8\"", "[4]", "[4,8]"), 8)},
      {"an overlap", "overlap or leave a gap",
       file_of(R"({"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},)"
               R"("b":{"dtype":"U8","shape":[6],"data_offsets":[2,8]}})",
               8)},
      {"the same bytes twice", "overlap or leave a gap",
       file_of(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
               R"("b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
               8)},
      {"a name twice", "twice",
       file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
               R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
               8)},
      {"a key twice inside a tensor", "twice",
       file_of(R"({"a":{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]}})", 8)},
      {"metadata that are no strings", "not a string", file_of(R"({"__metadata__":{"n":1}})", 0)},
      {"metadata that are no object", "not an object", file_of(R"({"__metadata__":[]})", 0)},
      {"ten thousand brackets", "nests deeper than 32",
       file_of("{\"t\":" + std::string(10000, '[') + std::string(10000, ']') + "}", 0)},
      {"ten thousand brackets and no end", "nests deeper than 32",
       file_of("{\"t\":" + std::string(10000, '['), 0)},
      {"half a character", "not a JSON object", file_of("{\"\xc3\":1}", 0)},
      {"half a byte", "not give", file_of(tensor("\"F4\"", "[3]", "[0,1]"), 1)},
  };
  for (auto const& c : cases) {
    std::string const sentence = refusal(c.bytes);
    ASSERT_NE(sentence, "") << c.what << " was read";
    EXPECT_NE(sentence.find("is refused"), std::string::npos) << sentence;
    EXPECT_NE(sentence.find(c.sentence), std::string::npos) << c.what << ": " << sentence;
  }
}

TEST_F(Safetensors, ReadsAFileThatOthersWrote) {
  EXPECT_EQ(refusal(file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   )", 8)),
            "");
  checkpoint::safetensors_file file(place("hostile"));
  EXPECT_THROW(file.verify(true), lm::problem) << "it has no checksum";
  char bytes[8];
  file.read("t", "F32", std::vector<std::uint64_t>{2}, bytes);
  EXPECT_EQ(std::string(bytes, 8), "xxxxxxxx");
}

TEST_F(Safetensors, TensorsMayLieInAnyOrder) {
  put(place("order"), file_of(R"({"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                              R"("none":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},)"
                              R"("a":{"dtype":"U8","shape":[2,2],"data_offsets":[4,8]}})",
                              0) +
                          "bbbbaaaa");
  checkpoint::safetensors_file const file(place("order"));
  EXPECT_EQ(std::memcmp(file.find("a")->data, "aaaa", 4), 0);
  EXPECT_EQ(std::memcmp(file.find("b")->data, "bbbb", 4), 0);
  EXPECT_EQ(file.find("none")->bytes, 0u);
}

TEST_F(Safetensors, ASentenceQuotesNoControlCharactersAndNoBooks) {
  std::string const sentence =
      refusal(file_of(R"({"\u001b[2J)" + std::string(1000, 'n') + R"(":7})", 0));
  EXPECT_NE(sentence.find(R"(\u001b[2J)"), std::string::npos) << sentence;
  EXPECT_EQ(sentence.find('\x1b'), std::string::npos);
  EXPECT_LT(sentence.size(), 500u);
}

TEST_F(Safetensors, TensorsAreUsedWhereTheyLie) {
  write_sample(place("sample"));
  checkpoint::safetensors_file file(place("sample"));
  checkpoint::tensor const* const t = file.find("weights");
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_EQ(std::memcmp(t->data, weights_, sizeof weights_), 0);
  std::byte const* const before = t->data;
  checkpoint::safetensors_file const moved(std::move(file));
  ASSERT_NE(moved.find("weights"), nullptr);
  EXPECT_EQ(moved.find("weights")->data, before);
  EXPECT_EQ(std::memcmp(before, weights_, sizeof weights_), 0);
  // A file of others may put a tensor anywhere.
  std::string const odd = file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )", 8);
  put(place("odd"), odd);
  EXPECT_EQ(checkpoint::safetensors_file(place("odd")).find("t")->aligned(), odd.size() % 4 == 0);
}

TEST_F(Safetensors, EveryTypeOfTheFormat) {
  struct {
    char const* kind;
    std::uint64_t elements, bytes;
  } const kinds[] = {{"F64", 1, 8},     {"F32", 2, 8},     {"F16", 2, 4},     {"BF16", 3, 6},
                     {"F8_E4M3", 5, 5}, {"F8_E5M2", 5, 5}, {"F8_E8M0", 5, 5}, {"F6_E2M3", 4, 3},
                     {"F6_E3M2", 8, 6}, {"F4", 6, 3},      {"I64", 1, 8},     {"I32", 1, 4},
                     {"I16", 1, 2},     {"I8", 3, 3},      {"U64", 1, 8},     {"U32", 1, 4},
                     {"U16", 1, 2},     {"U8", 3, 3},      {"BOOL", 3, 3}};
  std::vector<checkpoint::tensor_source> all;
  for (auto const& k : kinds) all.push_back({k.kind, k.kind, {k.elements}, "12345678"});
  checkpoint::write_safetensors(place("all"), all);
  checkpoint::safetensors_file const file(place("all"));
  file.verify(true);
  ASSERT_EQ(file.tensors().size(), checkpoint::element_kinds.size());
  for (auto const& k : kinds) {
    EXPECT_EQ(file.find(k.kind)->bytes, k.bytes) << k.kind;
    EXPECT_TRUE(file.find(k.kind)->aligned()) << k.kind;
  }
}

TEST_F(Safetensors, Battery40_ATypeThatIsNotKnownIsRefusedWhereItIsAskedFor) {
  for (std::string const kind : {"C64", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F33", "", "\\u001b[2J"}) {
    std::string const header = R"({"t":{"dtype":")" + kind +
                               R"(","shape":[2,7],"data_offsets":[0,5]},"w":{"dtype":"U8",)" +
                               R"("shape":[3],"data_offsets":[5,8]}})";
    ASSERT_EQ(refusal(file_of(header, 8)), "") << kind;
    checkpoint::safetensors_file const file(place("hostile"));
    char bytes[3];
    file.read("w", "U8", std::vector<std::uint64_t>{3}, bytes);
    EXPECT_EQ(std::string(bytes, 3), "xxx");
    ASSERT_NE(file.find("t"), nullptr);
    EXPECT_EQ(file.find("t")->bytes, 5u);
    EXPECT_TRUE(file.find("t")->aligned());
    try {
      file.read("t", "F32", std::vector<std::uint64_t>{2, 7}, bytes);
      ADD_FAILURE() << kind << " was read";
    } catch (lm::problem const& refused) {
      EXPECT_NE(std::string(refused.what()).find("tensor t is " + kind + "; it must be F32"),
                std::string::npos)
          << refused.what();
    }
    // Its bytes are its own all the same.
    for (char const* place : {"[0,4]", "[0,6]", "[1,5]", "[0,9]", "[5,0]"}) {
      std::string other = header;
      other.replace(other.find("[0,5]"), 5, place);
      EXPECT_NE(refusal(file_of(other, 8)), "") << kind << " at " << place;
    }
  }
}

TEST_F(Safetensors, TypeAndShapeMustBeThoseAskedFor) {
  write_sample(place("sample"));
  checkpoint::safetensors_file file(place("sample"));
  float w[6];
  auto const sentence = [&](std::string const& name, std::string const& kind,
                            std::vector<std::uint64_t> const& shape) -> std::string {
    try {
      file.read(name, kind, shape, w);
    } catch (lm::problem const& p) { return p.what(); }
    return {};
  };
  EXPECT_NE(sentence("weights", "F32", {3, 2}).find("shape [2,3]; it must be [3,2]"),
            std::string::npos);
  EXPECT_NE(sentence("weights", "F32", {6}).find("it must be [6]"), std::string::npos);
  EXPECT_NE(sentence("weights", "BF16", {2, 3}).find("is F32; it must be BF16"), std::string::npos);
  EXPECT_NE(sentence("absent", "F32", {2, 3}).find("no tensor absent"), std::string::npos);
  EXPECT_EQ(sentence("weights", "F32", {2, 3}), "");
}

TEST_F(Safetensors, AFailedWriteLeavesTheOldFileWhole) {
  write_sample(place("sample"));
  std::string const before = content(place("sample"));
  {
    lm::atomic_file half(place("sample"));
    half.write("half of a new file");
  }  // not committed: as after an exception
  EXPECT_EQ(content(place("sample")), before);
  EXPECT_THROW(checkpoint::write_safetensors(place("sample"), {{"t", "F33", {1}, "x"}}),
               lm::problem);
  EXPECT_THROW(checkpoint::write_safetensors(place("no/such/folder"), {{"t", "U8", {1}, "x"}}),
               lm::problem);
  EXPECT_EQ(content(place("sample")), before);
  std::size_t files = 0;
  for ([[maybe_unused]] auto const& entry : fs::directory_iterator(folder_)) ++files;
  EXPECT_EQ(files, 1u) << "something was left behind";
}

TEST_F(Safetensors, AFullDiskIsReportedAndTheOldFileStays) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full here";
  // A write to a full disk fails at once; a link stands for the file beside the old one.
  fs::path const path = place("sample");
  write_sample(path);
  std::string const before = content(path);
  fs::create_symlink("/dev/full", path.string() + ".part." + std::to_string(::getpid()));
  EXPECT_THROW(write_sample(path), lm::problem);
  EXPECT_EQ(content(path), before);
}

}  // namespace examples_safetensors_test
