#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "../examples/support/corpus.hpp"

namespace examples_corpus_test {

namespace fs = std::filesystem;

class Corpus : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_corpus." + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path put(std::string const& name, std::string const& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  /// `count` fortunes that begin with `word`, no two alike.
  static std::string fortunes(std::string const& word, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      text += word + " number " + std::to_string(i) + "\nand its second line\n%\n";
    }
    return text;
  }
  static std::multiset<std::string> documents(std::vector<std::uint8_t> const& part) {
    std::multiset<std::string> result;
    for (auto at = part.begin(); at != part.end();) {
      auto const end = std::find(at, part.end(), lm::end_of_document);
      result.emplace(at, end);
      at = end == part.end() ? end : end + 1;
    }
    return result;
  }
  static std::string refusal(std::vector<std::string> const& arguments) {
    try {
      lm::require_length(lm::user_corpus(arguments, 1000000), 64);
    } catch (lm::problem const& p) { return p.what(); }
    return {};
  }

  fs::path folder_;
};

TEST_F(Corpus, FortunesAreCutAtTheirPercentLines) {
  auto const parts = lm::documents_of(
      "%\nfirst saying, 100 % true\n%\nsecond saying\n\nof two lines\n%\n\n%\nthe last of them "
      "all");
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].text, "first saying, 100 % true");
  EXPECT_EQ(parts[1].text, "second saying\n\nof two lines");
  EXPECT_EQ(parts[2].text, "the last of them all");
  EXPECT_NE(parts[0].group, parts[1].group);
  auto const ended = lm::documents_of("first saying of two\n%\nsecond saying of two\n%\n");
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[1].text, "second saying of two");
}

TEST_F(Corpus, AFileIsOneDocumentWithoutItsLicense) {
  auto const parts =
      lm::documents_of("// Copyright\n// all of it\n\nint answer() { return 42; }\n");
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].text, "int answer() { return 42; }");
}

TEST_F(Corpus, TheLongPiecesOfAFileAreOneGroup) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "a line, number " + std::to_string(i) + "\n";
  auto const parts = lm::documents_of(text);
  ASSERT_GT(parts.size(), 4u);
  std::size_t bytes = 0;
  for (auto const& part : parts) {
    EXPECT_EQ(part.group, parts[0].group);
    EXPECT_LE(part.text.size(), 16384u);
    EXPECT_EQ(part.text.substr(0, 6), "a line") << "cut inside a line";
    bytes += part.text.size() + 1;
  }
  EXPECT_EQ(bytes, text.size());
  // Not a line end in sight: cut all the same.
  EXPECT_EQ(lm::documents_of(std::string(40000, 'x')).size(), 3u);
}

TEST_F(Corpus, OneDocumentInTenIsHeldOutAndNoneIsOnBothSides) {
  put("en/sayings", fortunes("saying", 2000));
  lm::corpus const text = lm::user_corpus({"en=" + (folder_ / "en").string()}, 1000000);
  ASSERT_EQ(text.domains.size(), 1u);
  lm::domain const& d = text.domains[0];
  EXPECT_EQ(d.name, "en");
  EXPECT_EQ(d.train_documents + d.held_out_documents, 2000u);
  EXPECT_GT(d.held_out_documents, 140u);
  EXPECT_LT(d.held_out_documents, 260u);
  auto const train = documents(d.train), held_out = documents(d.held_out);
  EXPECT_EQ(train.size(), d.train_documents);
  EXPECT_EQ(held_out.size(), d.held_out_documents);
  for (std::string const& document : held_out) EXPECT_EQ(train.count(document), 0u) << document;
}

TEST_F(Corpus, TheSameDocumentTwiceIsTakenOnce) {
  put("a/one", fortunes("saying", 200));
  put("a/two", fortunes("saying", 200));
  put("b/three", fortunes("saying", 150) + fortunes("other saying", 200));
  lm::corpus const text =
      lm::user_corpus({(folder_ / "a").string(), (folder_ / "b").string()}, 1000000);
  EXPECT_EQ(text.domains[0].train_documents + text.domains[0].held_out_documents, 200u);
  EXPECT_EQ(text.domains[1].train_documents + text.domains[1].held_out_documents, 200u);
}

TEST_F(Corpus, TheSplitDoesNotDependOnTheNamesOrOrderOfFiles) {
  put("a/one", fortunes("saying", 100));
  put("a/two", fortunes("proverb", 100));
  put("b/zwei", fortunes("saying", 100));
  put("b/eins", fortunes("proverb", 100));
  auto const a = lm::user_corpus({"x=" + (folder_ / "a").string()}, 1000000);
  auto const b = lm::user_corpus({"x=" + (folder_ / "b").string()}, 1000000);
  EXPECT_EQ(a.domains[0].train, b.domains[0].train);
  EXPECT_EQ(a.domains[0].held_out, b.domains[0].held_out);
  EXPECT_EQ(a.fingerprint(), b.fingerprint());
  auto const c = lm::user_corpus({"y=" + (folder_ / "a").string()}, 1000000);
  EXPECT_NE(a.fingerprint(), c.fingerprint());
}

TEST_F(Corpus, DomainsAreCapped) {
  put("en/sayings", fortunes("saying", 2000));
  lm::corpus const text = lm::user_corpus({(folder_ / "en").string()}, 10000);
  EXPECT_GE(text.bytes(), 10000u);
  EXPECT_LT(text.bytes(), 10100u);
}

TEST_F(Corpus, ACapBelowTheFirstDocumentLeavesTwoOfThem) {
  for (char const* name : {"a", "b", "c", "d"}) {
    put(std::string("long/") + name, std::string(2000, name[0]) + "\n");
  }
  lm::corpus const text = lm::user_corpus({(folder_ / "long").string()}, 1500);
  EXPECT_EQ(text.domains[0].train_documents, 1u);
  EXPECT_EQ(text.domains[0].held_out_documents, 1u);
}

TEST_F(Corpus, ASingleLongFileIsSplitToo) {
  std::string text;
  for (int i = 0; i < 9000; ++i) text += "a line, number " + std::to_string(i) + "\n";
  put("book.txt", text);
  lm::corpus const one = lm::user_corpus({(folder_ / "book.txt").string()}, 1000000);
  EXPECT_EQ(one.domains[0].name, "book");
  EXPECT_GE(one.domains[0].held_out_documents, 1u);
  EXPECT_GT(one.domains[0].train.size(), one.domains[0].held_out.size());
}

TEST_F(Corpus, FilesThatAreNoTextAreLeftOut) {
  put("d/text", fortunes("saying", 50));
  put("d/text.dat", std::string("\0\0\0\2binary", 10));
  put("d/.hidden", fortunes("hidden", 50));
  put("d/.git/config", fortunes("hidden", 50));
  fs::create_symlink(folder_ / "d/text", folder_ / "d/text.u8");
  fs::create_directory_symlink(folder_, folder_ / "d/loop");
  lm::corpus const text = lm::user_corpus({(folder_ / "d").string()}, 1000000);
  EXPECT_EQ(text.domains[0].train_documents + text.domains[0].held_out_documents, 50u);
}

TEST_F(Corpus, BadTextArgumentsGetASentence) {
  EXPECT_NE(refusal({(folder_ / "absent").string()}).find("no file or folder"), std::string::npos);
  put("single", "one single document, far too short");
  EXPECT_NE(refusal({(folder_ / "single").string()}).find("needs at least two"), std::string::npos);
  put("short", "a first document, short\n%\na second one, short\n%\n");
  EXPECT_NE(refusal({(folder_ / "short").string()}).find("a sequence needs 65"), std::string::npos);
  fs::create_directories(folder_ / "empty");
  EXPECT_NE(refusal({(folder_ / "empty").string()}).find("needs at least two"), std::string::npos);
}

TEST_F(Corpus, TheDefaultTellsLanguagesApart) {
  put("f/english", fortunes("an english saying", 300));
  put("f/italiano", fortunes("un detto italiano", 300));  // beside the English ones, as packaged
  put("f/it/italiano", fortunes("un detto italiano", 300));
  put("f/de/spruch", fortunes("ein deutscher Spruch", 300));
  put("f/es/refran", fortunes("un refran", 300));
  put("f/off/rude", fortunes("rude", 300));
  lm::corpus const text = lm::default_corpus(100000, folder_ / "f");
  ASSERT_GE(text.domains.size(), 4u);
  for (lm::domain const& d : text.domains) {
    std::string const all(d.train.begin(), d.train.end());
    EXPECT_EQ(all.find("rude"), std::string::npos) << d.name;
    EXPECT_EQ(all.find("un detto") != std::string::npos, d.name == "it") << d.name;
  }
}

TEST_F(Corpus, WithoutFortunesItFallsBackToOurOwnTextAndSaysSo) {
  lm::corpus const text = lm::default_corpus(1000000, folder_ / "absent");
  auto const said = [&](std::string const& words) {
    return std::any_of(text.notes.begin(), text.notes.end(), [&](std::string const& note) {
      return note.find(words) != std::string::npos;
    });
  };
  EXPECT_TRUE(said("None of the packages"));
  EXPECT_TRUE(said("this project's own text"));
  auto const own = std::find_if(text.domains.begin(), text.domains.end(),
                                [](lm::domain const& d) { return d.name == "shunt"; });
  ASSERT_NE(own, text.domains.end());
  std::string const all(own->train.begin(), own->train.end());
  EXPECT_NE(all.find("namespace shunt"), std::string::npos);
}

TEST_F(Corpus, TheInstalledTextIsLargeEnough) {
  lm::corpus const text = lm::default_corpus(1000000);
  if (!fs::exists("/usr/share/games/fortunes/de")) GTEST_SKIP() << "fortunes are not installed";
  EXPECT_GE(text.bytes(), 1000000u);
  EXPECT_EQ(text.fingerprint(), lm::default_corpus(1000000).fingerprint());
  for (lm::domain const& d : text.domains) EXPECT_LE(d.train.size(), 1100000u) << d.name;
}

}  // namespace examples_corpus_test
