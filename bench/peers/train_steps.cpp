// train_lm's training step alone, for torch_train.py: writes the model's first weights and settings to
// FOLDER and says that it is ready; then for each line "N" on its input it makes N steps with the batches
// that it finds there, and answers with a line of JSON: their losses.
//
//   train_steps FOLDER      FOLDER/tokens: int32 [batches, batch, sequence + 1]; used in turn
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "support/network.hpp"

namespace {

std::vector<lm::batch> read_batches(std::string const& path, lm::settings const& s) {
  std::ifstream from(path, std::ios::binary);
  std::vector<lm::batch> all;
  std::size_t const each = std::size_t(s.batch) * std::size_t(s.sequence + 1);
  std::vector<shunt::index_t> tokens(each);
  while (from.read(reinterpret_cast<char*>(tokens.data()),
                   static_cast<std::streamsize>(each * sizeof tokens[0]))) {
    all.push_back({tokens, std::size_t(s.batch)});
  }
  if (all.empty()) throw lm::problem(path + ": there is no batch in it");
  return all;
}

void run(std::string const& folder) {
  lm::settings const s;
  lm::network<float> network(s, true, shunt::on_host{});
  checkpoint::write_safetensors(folder + "/start.safetensors", network.state(), {});
  std::ofstream(folder + "/settings.json") << nlohmann::json(s);
  std::cout << "ready" << std::endl;
  std::vector<lm::batch> batches;
  std::int64_t step = 0;
  for (std::string line; std::getline(std::cin, line);) {
    if (batches.empty()) batches = read_batches(folder + "/tokens", s);
    nlohmann::json answer = nlohmann::json::array();
    for (int left = std::stoi(line); left > 0; --left, ++step) {
      lm::expert_load load;
      answer.push_back(network.train(batches[std::size_t(step) % batches.size()], step, load).loss);
    }
    std::cout << answer << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "train_steps FOLDER\n");
    return 2;
  }
  try {
    run(argv[1]);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "train_steps: %s\n", e.what());
    return 1;
  }
}
