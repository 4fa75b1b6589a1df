// What ptxas says of a kernel: its PTX, without the module's other kernels, goes into a temporary
// file, `ptxas -v` compiles it for an architecture, and its report is read. Slow, so only on request,
// and remembered.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "counters/counters.hpp"
#include "runtime/registry.hpp"

#ifndef SOFTGPU_PTXAS_TOOL
#define SOFTGPU_PTXAS_TOOL "ptxas"
#endif

namespace softgpu {
namespace {

/// ptxas, as the environment or the build names it.
std::string tool() {
  char const* const named = std::getenv("SOFTGPU_PTXAS_TOOL");
  return named != nullptr && *named != '\0' ? named : SOFTGPU_PTXAS_TOOL;
}

/// A file that holds a text while this lives.
class temporary_file {
 public:
  explicit temporary_file(std::string_view text) {
    char const* const folder = std::getenv("TMPDIR");
    path_ = std::string(folder != nullptr && *folder != '\0' ? folder : "/tmp") + "/softgpu-XXXXXX";
    int const file = mkostemp(path_.data(), O_CLOEXEC);
    if (file < 0) return;
    good_ = true;
    while (!text.empty() && good_) {
      auto const wrote = write(file, text.data(), text.size());
      good_ = wrote > 0;
      if (good_) text.remove_prefix(static_cast<std::size_t>(wrote));
    }
    close(file);
  }
  temporary_file(temporary_file const&) = delete;
  temporary_file& operator=(temporary_file const&) = delete;
  ~temporary_file() { unlink(path_.c_str()); }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] std::string const& path() const { return path_; }

 private:
  std::string path_;
  bool good_ = false;
};

std::string quoted(std::string const& word) {
  std::string out = "'";
  for (char const c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

/// Everything a command prints; false where it fails.
bool output_prefetch(std::string const& command, std::string& out) {
  std::FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return false;
  char piece[4096];
  while (std::size_t const n = std::fread(piece, 1, sizeof piece, pipe)) out.append(piece, n);
  return pclose(pipe) == 0;
}

/// The number before a phrase, on the line that begins at `from`; 0 where it is not there.
int number_before(std::string const& text, std::size_t from, std::string const& phrase) {
  std::size_t const end = text.find('\n', from), at = text.find(phrase, from);
  if (at == std::string::npos || at > end) return 0;
  std::size_t const digits = text.find_last_not_of("0123456789", at - 1) + 1;
  return std::atoi(text.c_str() + digits);
}

bool read_report(std::string const& text, std::string const& entry, kernel_resources& r) {
  std::size_t const start = text.find("Compiling entry function '" + entry + "'");
  std::size_t const own = text.find("Function properties for " + entry + "\n", start);
  std::size_t const used = text.find("Used ", start);
  if (start == std::string::npos || own == std::string::npos || used == std::string::npos)
    return false;
  std::size_t const frame = text.find('\n', own) + 1;
  r.stack_bytes = number_before(text, frame, " bytes stack frame");
  r.spill_store_bytes = number_before(text, frame, " bytes spill stores");
  r.spill_load_bytes = number_before(text, frame, " bytes spill loads");
  r.registers = number_before(text, used, " registers");
  r.barriers = number_before(text, used, " barriers");
  r.shared_bytes = number_before(text, used, " bytes smem");
  return true;
}

/// A module's text with one kernel of all: ptxas reads the others as slowly as it compiles this one.
std::string with_entry_alone(std::string_view text, std::string_view entry) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const kernel = text.find(".entry ", at), name = kernel + 7;
    std::size_t const open = kernel == text.npos ? kernel : text.find('{', kernel);
    if (open == text.npos) return out.append(text.substr(at));
    std::size_t end = open + 1;
    for (int depth = 1; depth > 0 && end < text.size(); ++end) {
      depth += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
    }
    bool const wanted =
        text.substr(name, entry.size()) == entry && text[name + entry.size()] == '(';
    std::size_t const line = text.rfind('\n', kernel) + 1;  // .visible, .weak stand there
    out.append(text.substr(at, (wanted ? end : std::max(line, at)) - at));
    at = end;
  }
  return out;
}

kernel_resources compile(kernel const& k, std::string const& architecture) {
  kernel_resources r;
  r.architecture = architecture;
  std::string const entry(k.source->name);
  temporary_file const ptx(with_entry_alone(*k.module->text, entry));
  if (!ptx.good()) return r.error = "cannot write a temporary file " + ptx.path(), r;
  std::string text;
  bool const done =
      output_prefetch(quoted(tool()) + " -v -arch=" + quoted(architecture) + " -e " +
                          quoted(entry) + " -o /dev/null " + quoted(ptx.path()) + " 2>&1",
                      text);
  if (!done || !read_report(text, entry, r)) r.error = text.empty() ? tool() + " failed" : text;
  return r;
}

}  // namespace

kernel_resources counters::ask_ptxas(kernel const& k, std::string const& architecture) {
  static std::mutex mutex;
  static std::map<std::pair<kernel const*, std::string>, kernel_resources> known;
  std::lock_guard const lock(mutex);
  auto const [at, fresh] = known.try_emplace({&k, architecture});
  if (fresh) at->second = compile(k, architecture);
  return at->second;
}

std::vector<kernel_resources> resources_of(void const* host_function,
                                           std::vector<std::string> const& architectures) {
  kernel const* k = nullptr;
  std::string error = "no kernel is registered at this address";
  try {
    k = registry::find_kernel(host_function);
  } catch (std::exception const& e) { error = e.what(); }
  std::vector<kernel_resources> out;
  for (std::string const& a : architectures) {
    if (k != nullptr) {
      out.push_back(counters::ask_ptxas(*k, a));
    } else {
      out.emplace_back();
      out.back().architecture = a, out.back().error = error;
    }
  }
  return out;
}

}  // namespace softgpu
