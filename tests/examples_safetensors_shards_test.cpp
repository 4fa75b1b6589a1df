// A checkpoint in several files: its index, and what of an index is refused.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../examples/support/checkpoint/shards.hpp"
#include "support/safetensors_case.hpp"

namespace examples_safetensors_shards_test {

namespace fs = std::filesystem;
class SafetensorsShards : public safetensors_case::folder_of_files {};

TEST_F(SafetensorsShards, Battery36_PythonsNumbersStandInNoHeaderAndNoIndex) {
  EXPECT_NE(refusal(file_of(R"({"__metadata__":{"n":NaN}})", 0)).find("not a JSON object"),
            std::string::npos);
  EXPECT_THROW((void)checkpoint::read_index("i", R"({"metadata":{"n":Infinity},"weight_map":{}})"),
               lm::problem);
}

TEST_F(SafetensorsShards, ShardsAreFoundByTheirIndex) {
  float const a[] = {1, 2}, b[] = {3};
  checkpoint::write_safetensors(place("one.safetensors"), {{"a", "F32", {2}, a}});
  checkpoint::write_safetensors(place("two.safetensors"), {{"b", "F32", {1}, b}});
  put(place("model.safetensors.index.json"),
      R"({"metadata":{"total_size":12},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  checkpoint::shards all(folder_);
  EXPECT_TRUE(all.has("a") && all.has("b") && !all.has("c"));
  EXPECT_EQ(all.opened(), 0u);
  ASSERT_NE(all.find("b"), nullptr);
  EXPECT_EQ(all.opened(), 1u) << "only what is asked for is mapped";
  EXPECT_EQ(std::memcmp(all.find("b")->data, b, 4), 0);
  EXPECT_EQ(std::memcmp(all.find("a")->data, a, 8), 0);
  EXPECT_EQ(all.find("c"), nullptr);
  EXPECT_EQ(all.names().size(), 2u);

  checkpoint::shards alone(place("one.safetensors"));
  EXPECT_TRUE(alone.has("a") && !alone.has("b"));
}

// An old copy in another shard, which was mapped before or lies first: the index says which one counts.
TEST_F(SafetensorsShards, Battery44_TheCopyThatTheIndexNamesIsRead) {
  float const a[] = {1, 2}, old[] = {-7, -7}, b[] = {3}, c[] = {4};
  checkpoint::write_safetensors(place("one.safetensors"),
                                {{"a", "F32", {2}, old}, {"b", "F32", {1}, b}});
  checkpoint::write_safetensors(
      place("two.safetensors"),
      {{"a", "F32", {2}, a}, {"b", "F32", {1}, old}, {"c", "F32", {1}, c}});
  put(place("model.safetensors.index.json"),
      R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors","c":"two.safetensors"}})");
  for (std::string const order : {"abc", "bac", "cba"}) {
    checkpoint::shards all(folder_);
    for (char const name : order) (void)all.find(std::string(1, name));
    EXPECT_EQ(std::memcmp(all.find("a")->data, a, 8), 0) << order;
    EXPECT_EQ(std::memcmp(all.find("b")->data, b, 4), 0) << order;
    EXPECT_EQ(std::memcmp(all.find("c")->data, c, 4), 0) << order;
    EXPECT_EQ(all.names().size(), 3u);
  }
  // What no entry of the index names is not there, whatever a shard holds.
  put(place("model.safetensors.index.json"), R"({"weight_map":{"b":"one.safetensors"}})");
  checkpoint::shards part(folder_);
  EXPECT_EQ(std::memcmp(part.find("b")->data, b, 4), 0);
  EXPECT_EQ(part.find("a"), nullptr);
}

TEST_F(SafetensorsShards, AHostileIndexIsRefusedWithASentence) {
  float const a[] = {1, 2};
  checkpoint::write_safetensors(place("one.safetensors"), {{"a", "F32", {2}, a}});
  auto const sentence = [&](std::string const& index) -> std::string {
    put(place("model.safetensors.index.json"), index);
    try {
      checkpoint::shards all(folder_);
      for (auto const name : all.names()) (void)all.find(name);
    } catch (lm::problem const& p) { return p.what(); }
    return {};
  };
  auto const map = [](std::string const& shard) {
    return R"({"weight_map":{"a":")" + shard + "\"}}";
  };
  EXPECT_EQ(sentence(map("one.safetensors")), "");
  std::string const outside[] = {
      "../one.safetensors", "/etc/passwd", "..", ".", "", "a/b", R"(a\\b)",
      R"(one\u0000)",       "C:one"};
  for (std::string const& shard : outside) {
    std::string const said = sentence(map(shard));
    EXPECT_NE(said.find("a file beside the index"), std::string::npos) << shard << ": " << said;
    EXPECT_NE(said.find("index.json"), std::string::npos) << said;
  }
  EXPECT_NE(
      sentence(R"({"weight_map":{"z":"one.safetensors"}})").find("no tensor z, which the index"),
      std::string::npos);
  EXPECT_NE(sentence(map("none.safetensors")).find("there is no file"), std::string::npos);
  EXPECT_NE(sentence(map("model.safetensors.index.json")).find("is refused"), std::string::npos);
  EXPECT_NE(
      sentence(R"({"weight_map":{"a":"one.safetensors","a":"b"}})").find("something twice: a"),
      std::string::npos);
  EXPECT_NE(sentence(R"({"weight_map":{"a":1}})").find("is not a string"), std::string::npos);
  EXPECT_NE(sentence(R"({"weight_map":[]})").find("no weight_map object"), std::string::npos);
  EXPECT_NE(sentence("{}").find("no weight_map object"), std::string::npos);
  EXPECT_NE(sentence("").find("not a JSON object"), std::string::npos);
  EXPECT_NE(sentence("[]").find("not a JSON object"), std::string::npos);
  EXPECT_NE(sentence(std::string(99999, '[')).find("nests deeper"), std::string::npos);
  std::string const whole = map("one.safetensors");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(sentence(whole.substr(0, size)), "") << "torn after " << size << " bytes";
  }
  fs::remove(place("model.safetensors.index.json"));
  EXPECT_THROW(checkpoint::shards{folder_}, lm::problem);
}

}  // namespace examples_safetensors_shards_test
