#pragma once
// What the tests of training share: a corpus of two small domains in a folder of their own, settings
// for short runs, and the signals put back as they were.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "../../examples/support/config.hpp"
#include "../../examples/support/trainer.hpp"

class on_small_corpus : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("shunt_corpus." + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    for (char const* name : {"ab", "xy"}) {
      std::string text;
      for (int i = 0; i < 400; ++i) {
        text += std::string(name) + std::to_string(i * i) + name + " and more\n%\n";
      }
      std::ofstream(folder_ / name) << text;
    }
    text_ = lm::user_corpus({(folder_ / "ab").string(), (folder_ / "xy").string()}, 100000);
    settings_.sequence = 16;
    settings_.batch = 4;
    lm::detail::stop_asked = 0;
    lm::listen_for_stop();
  }
  void TearDown() override {
    std::filesystem::remove_all(folder_);
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
  }

  std::filesystem::path folder_;
  lm::corpus text_;
  lm::settings settings_;
};
