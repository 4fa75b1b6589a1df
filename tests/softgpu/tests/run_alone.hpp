#pragma once
// Runs one disabled test of this executable in a process of its own: for what happens at exit.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

struct ending {
  int status = -1;
  std::string text;  // stdout and stderr
};

/// Runs Child.DISABLED_<test>, with what `environment` sets ("A=b C=d").
inline ending run_alone(std::string const& test, std::string const& environment = "") {
  char self[4096] = {};
  if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return {};
  std::string const command = environment + " '" + self +
                              "' --gtest_also_run_disabled_tests --gtest_filter=Child.DISABLED_" +
                              test + " 2>&1";
  std::FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  ending e;
  char piece[512];
  while (std::fgets(piece, sizeof piece, pipe) != nullptr) e.text += piece;
  int const status = pclose(pipe);
  e.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return e;
}
