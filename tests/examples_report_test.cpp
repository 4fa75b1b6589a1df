#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../examples/support/run_log.hpp"

namespace examples_report_test {

namespace fs = std::filesystem;

/// A run as it might have been: two layers, `experts` experts, two domains.
lm::model_result sample(std::string const& name, bool mixed, int experts) {
  lm::settings s;
  s.layers = 2;
  s.experts = experts;
  lm::model_result m;
  m.name = name;
  m.shape = lm::config_of(s, mixed);
  m.bytes_per_step = 2048;
  for (int step = 1; step <= 20; ++step) {
    m.curves.step.push_back(step);
    m.curves.loss.push_back(5.5 - 0.1 * step);
    m.curves.rate.push_back(1e-3);
    m.curves.gradient_norm.push_back(1);
    m.curves.seconds.push_back(0.1 * step);
  }
  m.curves.eval_step = {0, 10, 20};
  m.curves.eval_bits = {8, 6, 5};
  auto const shares = std::vector<double>(std::size_t(experts), 1.0 / experts);
  if (mixed) {
    m.curves.load_step = {10, 20};
    m.curves.load = {{shares, shares}, {shares, shares}};
    m.after.experts_by_domain = {{shares, shares}, {shares, shares}};
  }
  m.after.bits_per_byte = 5.0;
  m.after.per_domain = {{"en", 4.5}, {"de", 5.5}};
  m.before.use = {0.4, 0.3};
  m.after.use = {0.9, 0.01};
  m.steps = m.steps_timed = 20;
  m.seconds_per_step = 0.05;
  m.time = {{"experts", 0.5}, {"attention", 0.25}};
  return m;
}

nlohmann::json sample_log(std::vector<lm::model_result> const& models) {
  lm::corpus text;
  text.domains = {{"en", "/some/<place>", {1, 2, 3}, {4}, 1, 1}, {"de", "/else", {1}, {2}, 1, 1}};
  nlohmann::json log = {{"settings", lm::settings{}},
                        {"corpus", lm::json_of(text)},
                        {"table", lm::result_table(models)},
                        {"machine", {{"threads", 2}}},
                        {"models", nlohmann::json::array()}};
  for (auto const& m : models) log["models"].push_back(lm::json_of(m));
  return log;
}

class Report : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("shunt_report." + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// The exit code of report.py with this python, on this log.
  int make(std::string const& python, nlohmann::json const& log) const {
    std::ofstream(folder_ / "log.json") << log.dump();
    std::string const command =
        python + " " + (lm::detail::project_root() / "examples/support/report.py").string() + " " +
        (folder_ / "log.json").string() + " " + (folder_ / "report.html").string() + " >" +
        (folder_ / "said").string() + " 2>&1";
    int const code = std::system(command.c_str());
    return WIFEXITED(code) ? WEXITSTATUS(code) : -1;
  }
  [[nodiscard]] std::string content(char const* name) const {
    std::ifstream in(folder_ / name);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  static std::size_t count(std::string const& text, std::string const& word) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size())
      ++n;
    return n;
  }

  fs::path folder_;
};

TEST_F(Report, HasItsFiguresAndTables) {
  auto const log = sample_log({sample("moe", true, 8), sample("dense", false, 8)});
  int const code = make("/usr/bin/python3", log);
  if (code == 3 || code == 127) GTEST_SKIP() << "there is no matplotlib for /usr/bin/python3";
  ASSERT_EQ(code, 0) << content("said");
  std::string const page = content("report.html");
  EXPECT_EQ(count(page, "<svg"), 4u) << "loss, load, experts by domain, time";
  EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
  for (char const* words : {"held-out bits per byte", "layer 1", "attention", "/some/&lt;place&gt;",
                            "moe, held-out", "4.500"}) {
    EXPECT_GT(count(page, words), 0u) << words;
  }
}

TEST_F(Report, ASingleModelAndManyExpertsAreFine) {
  int const code = make("/usr/bin/python3", sample_log({sample("moe", true, 128)}));
  if (code == 3 || code == 127) GTEST_SKIP() << "there is no matplotlib for /usr/bin/python3";
  ASSERT_EQ(code, 0) << content("said");
  int const dense = make("/usr/bin/python3", sample_log({sample("dense", false, 8)}));
  ASSERT_EQ(dense, 0) << content("said");
  EXPECT_EQ(count(content("report.html"), "<svg"), 2u) << "a dense model has no experts to show";
}

TEST_F(Report, WithoutMatplotlibItSaysSo) {
  if (std::system("python3 -c pass >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no python3";
  // -I -S: only the standard library.
  int const code = make("python3 -I -S", sample_log({sample("moe", true, 8)}));
  EXPECT_EQ(code, 3);
  EXPECT_GT(count(content("said"), "no matplotlib"), 0u) << content("said");
  EXPECT_FALSE(fs::exists(folder_ / "report.html"));
}

TEST_F(Report, TheTableSaysWhatWasMeasured) {
  auto const rows = lm::result_table({sample("moe", true, 8), sample("dense", false, 8)});
  auto const cell = [&](std::string const& what, std::size_t column) -> std::string {
    for (auto const& row : rows) {
      if (row[0] == what) return row[column];
    }
    return "no such row";
  };
  EXPECT_EQ(rows[0], (std::vector<std::string>{"", "moe", "dense"}));
  EXPECT_EQ(cell("held-out bits per byte", 1), "5.0000");
  EXPECT_EQ(cell("expert utilization, before", 1), "0.400");
  EXPECT_EQ(cell("JSD to uniform, before", 2), "-");
  EXPECT_EQ(cell("milliseconds per step", 1), "50.0");
  EXPECT_EQ(cell("  ms in experts", 1), "25.0");
  EXPECT_NE(cell("of them active", 1).find(" %"), std::string::npos);
  for (auto const& row : rows) EXPECT_EQ(row.size(), 3u) << row[0];
}

}  // namespace examples_report_test
