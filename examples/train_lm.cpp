// Trains a byte-level transformer whose feed-forward is a mixture of experts, and a dense one of the
// same active parameters to compare it with, on the same bytes. Ctrl-C stops with all saved; --resume
// goes on. docs/train_lm.md tells more.
//
// test: --quick --no-report --out quick
// test: --quick --no-report --out quick --resume
// test: --quick --no-report --out quick_bf16 --bf16 --moe-only --steps 10
//
// --ranks N trains on N processes, with the bits of one. Built with an MPI (-DLM_WITH_MPI), mpirun starts the ranks.
//
// --device cuda is there where the CUDA Toolkit was when this was built.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "shunt/backend/host/simd/isa.hpp"
#include "support/corpus.hpp"
#include "support/cuda_network.hpp"
#include "support/network.hpp"
#include "support/options.hpp"
#include "support/run_log.hpp"
#include "support/start_ranks.hpp"
#include "support/trainer.hpp"

namespace {

namespace fs = std::filesystem;

std::string quoted(fs::path const& path) {
  std::string text = "'";
  for (char c : path.string()) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

#ifdef LM_WITH_CUDA
std::string device_name() { return lm::cuda_device_name(); }
#else
std::string device_name() { return {}; }
#endif

/// Threads of one rank: those of the machine, or those asked for, shared out.
shunt::on_host policy_of(lm::train_options const& options, lm::crew const* ranks) {
  shunt::on_host on{.threads = options.threads};
  if (ranks != nullptr) on.threads = std::max(1, shunt::host::workers_of(on) / ranks->ranks());
  return on;
}

/// The model on the device that the user named, or shared by ranks.
std::unique_ptr<lm::any_network> make_network(lm::train_options const& options, bool mixed,
                                              lm::crew* ranks) {
  shunt::on_host const on = policy_of(options, ranks);
  if (ranks != nullptr) return ranks->network(options.run, mixed, on);
  if (options.device == "cuda") {
#ifdef LM_WITH_CUDA
    return options.run.bf16 ? lm::cuda_network_of_bf16(options.run, mixed)
                            : lm::cuda_network_of_float(options.run, mixed);
#else
    throw lm::problem("--device cuda: this program was built where there was no CUDA Toolkit");
#endif
  }
  if (options.run.bf16) return std::make_unique<lm::network<shunt::bf16>>(options.run, mixed, on);
  return std::make_unique<lm::network<float>>(options.run, mixed, on);
}

/// Writes the log, and the report that is made of it. Says where they are.
void write_log(lm::train_options const& options, lm::corpus const& text,
               std::vector<lm::model_result> const& models, lm::table_rows const& table) {
  nlohmann::json log = {{"settings", options.run}, {"corpus", lm::json_of(text)}, {"table", table}};
  shunt::on_host const on{.threads = options.threads};
  log["machine"] = {{"threads", shunt::host::workers_of(on)},
                    {"instructions", to_string(shunt::host::resolve(on.instructions))},
                    {"compiler", __VERSION__}};
  if (options.device == "cuda") log["machine"]["device"] = device_name();
  log["models"] = nlohmann::json::array();
  for (lm::model_result const& m : models) log["models"].push_back(lm::json_of(m));
  fs::path const path = options.out / "log.json", page = options.out / "report.html";
  lm::atomic_file file(path);
  file.write(log.dump(1) + "\n");
  file.commit();
  std::printf("\nLog:         %s\n", path.c_str());
  if (options.no_report) return;
  fs::path const script = lm::detail::project_root() / "examples/support/report.py";
  std::fflush(stdout);
  for (char const* python : {"python3", "/usr/bin/python3"}) {  // the system's may know matplotlib
    std::string const command = std::string(python) + " " + quoted(script) + " " + quoted(path) +
                                " " + quoted(page) + " 2>&1";
    if (std::system((command + " >/dev/null").c_str()) != 0) continue;
    std::printf("Report:      %s\n", page.c_str());
    return;
  }
  std::printf(
      "No report: it needs python3 and matplotlib (Debian: python3-matplotlib). Later:\n"
      "  python3 %s %s %s\n",
      quoted(script).c_str(), quoted(path).c_str(), quoted(page).c_str());
}

void describe(lm::corpus const& text) {
  for (std::string const& note : text.notes) std::printf("%s\n", note.c_str());
  lm::table_rows rows = {{"text", "training bytes", "held-out bytes", "documents"}};
  for (lm::domain const& d : text.domains) {
    rows.push_back({d.name + " (" + d.place + ")", std::to_string(d.train.size()),
                    std::to_string(d.held_out.size()),
                    std::to_string(d.train_documents + d.held_out_documents)});
  }
  lm::print_table(rows);
  std::printf("\n");
}

/// Trains one of the two models, or continues it. False where the user asked to stop.
bool train_one(lm::train_options& options, lm::corpus const& text, bool mixed, double share,
               lm::crew* ranks, std::vector<lm::model_result>& results) {
  std::string const name = mixed ? "moe" : "dense";
  fs::path const path = options.out / (name + ".safetensors");
  auto const made = make_network(options, mixed, ranks);
  lm::any_network& network = *made;
  lm::trainer run(name, options.run, text, network, ranks);
  run.stop_at(options.stop_at);
  bool const known = options.resume && fs::exists(path);
  if (known) run.resume(path);
  run.train(path, [&](double step_seconds) {
    if (!results.empty() || options.seconds <= 0) return;  // the second model follows the first
    // A tenth goes to evaluations.
    double const wanted = step_seconds * 1.1 * double(options.run.steps) / share;
    if (wanted <= options.seconds) return;
    std::int64_t const asked = options.run.steps;
    options.run.steps = std::max<std::int64_t>(
        20, static_cast<std::int64_t>(double(options.run.steps) * options.seconds / wanted));
    run.set_steps(options.run.steps);
    network.set_steps(options.run.steps);
    std::printf("\n%lld steps would take %s here: %lld will be made (--seconds 0: no limit)\n",
                static_cast<long long>(asked), lm::duration_text(wanted).c_str(),
                static_cast<long long>(options.run.steps));
  });
  if (!run.finished()) {
    std::printf("Stopped at step %lld of %lld; all is saved in %s. To go on, add --resume.\n",
                static_cast<long long>(run.step()), static_cast<long long>(options.run.steps),
                options.out.c_str());
    return false;
  }
  results.push_back({name, network.config(), double(options.run.batch) * options.run.sequence,
                     run.curves(), run.before(), run.evaluate(run.many_windows), run.step(),
                     run.step_seconds() / double(run.step()), network.time(),
                     network.steps_timed()});
  return true;
}

int train_all(lm::train_options& options, lm::corpus const& text, lm::crew* ranks) {
  std::vector<lm::model_result> results;
  bool const both = !options.moe_only && !options.dense_only;
  for (bool mixed : {true, false}) {
    if (mixed ? options.dense_only : options.moe_only) continue;
    if (!train_one(options, text, mixed, both ? 0.5 : 1.0, ranks, results)) return 130;
  }
  if (ranks != nullptr && ranks->rank() > 0) return 0;
  lm::table_rows const table = lm::result_table(results);
  std::printf("\n");
  lm::print_table(table);
  write_log(options, text, results, table);
  std::printf("Checkpoints: %s\n", options.out.c_str());
  return 0;
}

/// With --resume: the settings of the run in the folder, which the command line must not contradict.
void take_up(lm::train_options& options) {
  for (char const* name : {"moe.safetensors", "dense.safetensors"}) {
    fs::path const path = options.out / name;
    if (!fs::exists(path)) continue;
    checkpoint::safetensors_file file(path);
    lm::adopt(options, lm::checkpoint_state(file).at("settings").get<lm::settings>(), path);
    return;
  }
  throw lm::problem("--resume: there is no checkpoint in " + options.out.string());
}

int run(int argc, char** argv, lm::mpi_session const& mpi) {
  CLI::App app(
      "Trains a small mixture-of-experts language model on text, and a dense one to compare "
      "it with.");
  lm::train_options options;
  try {
    lm::parse(app, options, argc, argv);
  } catch (CLI::ParseError const& e) { return app.exit(e); }
  if (mpi.ranks() > 1 && options.ranks > 1) {
    throw lm::problem("--ranks is " + std::to_string(options.ranks) +
                      "; under mpirun it must be 1: it started the ranks");
  }
  if (options.device == "cuda" && std::max(options.ranks, mpi.ranks()) > 1) {
    throw lm::problem("--device cuda: it runs on one rank");
  }
  if (options.resume) take_up(options);
  lm::corpus const text = options.run.text.empty()
                              ? lm::default_corpus(options.run.domain_bytes)
                              : lm::user_corpus(options.run.text, options.run.domain_bytes);
  lm::require_length(text, static_cast<std::size_t>(options.run.sequence));
  fs::create_directories(options.out);
  describe(text);
  lm::listen_for_stop();
  lm::rank_body const train = [&](lm::crew& ranks) { return train_all(options, text, &ranks); };
  if (mpi.ranks() > 1) return mpi.run(train);
  if (options.ranks > 1) return lm::on_processes(options.ranks, train);
  return train_all(options, text, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  lm::mpi_session const mpi(argc, argv);
  try {
    return run(argc, argv, mpi);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "train_lm: %s\n", e.what());
    return 1;
  }
}
