#pragma once
#include <memory>
#include <string>

#include "problem.hpp"
#include "settings.hpp"
#include "shunt/core/policy.hpp"

namespace lm {

class any_network;

/// What all ranks found out together: each of them throws it, and one of them says it.
struct agreed_problem : problem {
  using problem::problem;
};

/// The ranks of a run as one of them sees them. All make the same calls in the same order.
class crew {
 public:
  virtual ~crew() = default;
  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int ranks() const noexcept = 0;
  /// The bits that any rank has.
  [[nodiscard]] virtual unsigned any_of(unsigned flags) = 0;
  /// The number of rank 0.
  [[nodiscard]] virtual double of_first(double value) = 0;
  /// Throws the sentence of the first rank that has one.
  virtual void agree(std::string const& wrong) = 0;
  /// A model whose experts and tokens these ranks share.
  [[nodiscard]] virtual std::unique_ptr<any_network> network(settings const& s, bool mixed,
                                                             shunt::on_host const& on) = 0;
};

}  // namespace lm
