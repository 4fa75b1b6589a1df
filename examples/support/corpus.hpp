#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "documents.hpp"
#include "hash.hpp"
#include "problem.hpp"

namespace lm {

inline constexpr std::uint8_t end_of_document = 0;  // no text holds this byte

/// One kind of text: the documents one after another, each ended by `end_of_document`.
struct domain {
  std::string name, place;
  std::vector<std::uint8_t> train, held_out;
  std::size_t train_documents = 0, held_out_documents = 0;
};

struct corpus {
  std::vector<domain> domains;
  std::vector<std::string> notes;  ///< what the user should know about where the text came from

  [[nodiscard]] std::size_t bytes() const noexcept {
    std::size_t sum = 0;
    for (domain const& d : domains) sum += d.train.size() + d.held_out.size();
    return sum;
  }
  /// The same for the same text in the same domains.
  [[nodiscard]] std::uint64_t fingerprint() const noexcept {
    std::uint64_t h = hash("corpus");
    for (domain const& d : domains) {
      h = hash(d.name, h);
      h = hash(d.train.data(), d.train.size(), h);
      h = hash(d.held_out.data(), d.held_out.size(), h);
    }
    return h;
  }
};

/// Makes a domain of documents: groups are taken in the order of their hashes until `most` bytes are
/// reached, though never fewer than two, and one group in ten, picked by hash too, is held out. `seen`
/// keeps the hashes of all documents taken so far, by any domain: none is taken twice, so that none
/// stands on both sides.
[[nodiscard]] inline domain make_domain(std::string name, std::string place,
                                        std::vector<document> documents, std::size_t most,
                                        std::set<std::uint64_t>& seen) {
  domain result{std::move(name), std::move(place), {}, {}, 0, 0};
  bool const one_group = std::all_of(documents.begin(), documents.end(), [&](document const& d) {
    return d.group == documents.front().group;
  });
  if (one_group) {  // a single long file: its pieces part
    for (document& d : documents) d.group = hash(d.text);
  }
  std::stable_sort(documents.begin(), documents.end(),
                   [](document const& a, document const& b) { return a.group < b.group; });
  std::vector<document const*> taken;
  std::size_t bytes = 0;
  for (document const& d : documents) {
    bool const two_groups = !taken.empty() && taken.front()->group != taken.back()->group;
    if (bytes >= most && two_groups) break;
    if (!seen.insert(hash(d.text)).second) continue;
    taken.push_back(&d);
    bytes += d.text.size() + 1;
  }
  auto const picked = [](document const* d) {
    return hash(&d->group, sizeof d->group, 1) % 10 == 0;
  };
  bool const none = std::none_of(taken.begin(), taken.end(), picked);
  bool const all = std::all_of(taken.begin(), taken.end(), picked);
  for (document const* d : taken) {
    bool const first = d->group == taken.front()->group, last = d->group == taken.back()->group;
    bool const held_out = none ? last && !first : picked(d) && !(all && first);
    std::vector<std::uint8_t>& to = held_out ? result.held_out : result.train;
    to.insert(to.end(), d->text.begin(), d->text.end());
    to.push_back(end_of_document);
    ++(held_out ? result.held_out_documents : result.train_documents);
  }
  return result;
}

namespace detail {

/// The C++ standard library's headers, of the newest version that is installed.
[[nodiscard]] inline std::filesystem::path standard_headers() {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path newest;
  int best = -1;
  for (fs::directory_iterator at("/usr/include/c++", error), end; !error && at != end;
       at.increment(error)) {
    std::string const name = at->path().filename().string();
    if (name.empty() || name.find_first_not_of("0123456789.") != std::string::npos) continue;
    int const version = std::atoi(name.c_str());
    if (version > best) best = version, newest = at->path();
  }
  return newest;
}

/// The project's own root, from where this file was compiled or from the folder we stand in.
[[nodiscard]] inline std::filesystem::path project_root() {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path const compiled = fs::path(__FILE__).parent_path().parent_path().parent_path();
  for (fs::path const& root : {compiled, fs::current_path(error)}) {
    if (fs::is_directory(root / "include/shunt", error)) return root;
  }
  return {};
}

struct place {
  char const* name;
  std::filesystem::path path;
  std::vector<std::string> skip;
};

inline void add_places(corpus& to, std::vector<place> const& places, std::size_t most,
                       std::set<std::uint64_t>& seen) {
  std::error_code error;
  for (place const& from : places) {
    if (from.path.empty() || !std::filesystem::exists(from.path, error)) continue;
    domain made = make_domain(from.name, from.path.string(),
                              read_documents(from.path, 8 * most, from.skip), most, seen);
    if (!made.train.empty() && !made.held_out.empty()) to.domains.push_back(std::move(made));
  }
}

}  // namespace detail

/// The text that a Debian machine has or can install: fortunes in four languages and the C++ standard
/// library's headers; without fortunes, the headers and this project's own files. `fortunes` is the
/// folder of the former (a test may name another). Each domain has at most `most` bytes.
[[nodiscard]] inline corpus default_corpus(
    std::size_t most, std::filesystem::path const& fortunes = "/usr/share/games/fortunes") {
  corpus result;
  std::set<std::uint64_t> seen;
  // English last: the Italian package puts its files beside the English ones too.
  detail::add_places(result,
                     {{"de", fortunes / "de", {"off"}},
                      {"es", fortunes / "es", {"off"}},
                      {"it", fortunes / "it", {"off"}},
                      {"en", fortunes, {"off", "de", "es", "it"}}},
                     most, seen);
  bool const any = !result.domains.empty();
  if (result.domains.size() < 4) {
    result.notes.push_back(std::string(any ? "Not all" : "None") +
                           " of the packages fortunes, fortunes-de, fortunes-es and fortunes-it " +
                           "are installed.");
  }
  detail::add_places(result, {{"c++", detail::standard_headers(), {}}}, most, seen);
  if (!any) {
    std::filesystem::path const root = detail::project_root();
    result.notes.push_back("Falling back to this project's own text.");
    if (!root.empty()) {
      detail::add_places(result,
                         {{"shunt", root / "include", {}},
                          {"tests", root / "tests", {}},
                          {"docs", root / "docs", {}}},
                         most, seen);
    }
  }
  if (result.bytes() < 1'000'000) {
    result.notes.push_back("The text has only " + std::to_string(result.bytes()) +
                           " bytes: expect both models to learn it by heart.");
  }
  return result;
}

/// The user's own text: each argument, PATH or NAME=PATH, is a domain.
[[nodiscard]] inline corpus user_corpus(std::vector<std::string> const& arguments,
                                        std::size_t most) {
  corpus result;
  std::set<std::uint64_t> seen;
  for (std::string const& argument : arguments) {
    std::size_t const equals = argument.find('=');
    std::error_code error;
    bool const named =
        equals != std::string::npos && equals > 0 && !std::filesystem::exists(argument, error);
    std::filesystem::path const path = named ? argument.substr(equals + 1) : argument;
    std::string name = named ? argument.substr(0, equals)
                             : (path.has_filename() ? path : path.parent_path()).stem().string();
    while (std::any_of(result.domains.begin(), result.domains.end(),
                       [&](domain const& d) { return d.name == name; })) {
      name += "'";
    }
    domain made = make_domain(name, path.string(), read_documents(path, 8 * most), most, seen);
    if (made.train.empty() || made.held_out.empty()) {
      throw problem(
          "--text " + argument + " has " + std::to_string(made.train_documents) +
          " documents that no other domain has; a domain needs at least two, one of them " +
          "to be held out (a file is cut into documents of 16 KiB)");
    }
    result.domains.push_back(std::move(made));
  }
  return result;
}

/// Refuses a text in which a domain is too short for one sequence of `sequence` bytes and the byte
/// that follows.
inline void require_length(corpus const& text, std::size_t sequence) {
  if (text.domains.empty()) {
    throw problem("no text was found: install fortunes, or name your own with --text");
  }
  for (domain const& d : text.domains) {
    for (auto const* part : {&d.train, &d.held_out}) {
      if (part->size() > sequence) continue;
      throw problem("domain " + d.name + " has " + std::to_string(part->size()) +
                    (part == &d.train ? " training" : " held-out") + " bytes; a sequence needs " +
                    std::to_string(sequence + 1) + " (give more text, or a smaller --seq)");
    }
  }
}

}  // namespace lm
