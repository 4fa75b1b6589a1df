#pragma once
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "rank_network.hpp"

namespace lm {

/// What a crew does over an exchange.
template <shunt::exchange X> class crew_over : public crew {
 public:
  explicit crew_over(X& transport) : transport_(transport) {}
  [[nodiscard]] int rank() const noexcept override { return transport_.rank(); }
  [[nodiscard]] int ranks() const noexcept override { return transport_.ranks(); }

  [[nodiscard]] unsigned any_of(unsigned flags) override {
    unsigned all = 0;
    for (unsigned const each : of_all(flags)) all |= each;
    return all;
  }
  [[nodiscard]] double of_first(double value) override { return of_all(value).front(); }
  void agree(std::string const& wrong) override {
    struct sentence {
      char text[480];
    } mine{};
    std::snprintf(mine.text, sizeof mine.text, "%s", wrong.c_str());
    for (sentence const& each : of_all(mine)) {
      if (each.text[0] != '\0') throw agreed_problem(each.text);
    }
  }
  [[nodiscard]] std::unique_ptr<any_network> network(settings const& s, bool mixed,
                                                     shunt::on_host const& on) override;

 private:
  template <class V> [[nodiscard]] std::vector<V> of_all(V const& mine) {
    std::vector<V> all(static_cast<std::size_t>(ranks()));
    require_of_all(transport_.all_gather(&mine, all.data(), sizeof mine));
    return all;
  }
  X& transport_;
};

template <shunt::exchange X>
std::unique_ptr<any_network> crew_over<X>::network(settings const& s, bool mixed,
                                                   shunt::on_host const& on) {
  if (s.bf16) return std::make_unique<rank_network<shunt::bf16, X>>(s, mixed, on, transport_);
  return std::make_unique<rank_network<float, X>>(s, mixed, on, transport_);
}

}  // namespace lm
