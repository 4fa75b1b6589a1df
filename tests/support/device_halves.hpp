#pragma once
#include <algorithm>
#include <vector>

#include "shunt/experts/weights.hpp"
#include "support/device_values.hpp"

namespace shunt::test {

/// Matrices whose halves lie apart, copied to a device: each half to memory of its own, exactly as
/// long, and the pointers to them.
template <class Element> class device_halves {
  using value = std::remove_const_t<Element>;

 public:
  explicit device_halves(basic_expert_matrix<Element> const& host)
      : host_(host),
        half_(host.rows() / 2),
        size_((half_ - 1) * host.stride(1) + host.columns()),
        gates_(copied(0)),
        ups_(copied(1)) {}

  [[nodiscard]] basic_expert_matrix<Element, space::device> there() const {
    auto const pointers = [&](on_device<Element*> const& to) {
      return view<Element* const, 1, space::device>(to.data(), {{host_.experts()}});
    };
    return basic_expert_matrix<Element, space::device>::each(
        pointers(gates_), pointers(ups_), half_, host_.columns(), host_.stride(1));
  }
  /// Bytes of ones, which are NaN.
  void wipe() {
    for (auto const& own : own_) {
      EXPECT_EQ(cudaMemset(own.data(), 0xff, own.size() * sizeof(value)), cudaSuccess);
    }
  }
  /// Whether the host's memory holds the same by now.
  [[nodiscard]] testing::AssertionResult same() const {
    for (std::size_t i = 0; i < own_.size(); ++i) {
      auto const e = static_cast<offset_t>(i) % host_.experts(),
                 h = static_cast<offset_t>(i) / host_.experts();
      if (auto r = same_values(own_[i].host(), host_half(e, h)); !r) {
        return r << " of expert " << e << (h == 0 ? "'s gate" : "'s up");
      }
    }
    return testing::AssertionSuccess();
  }

 private:
  [[nodiscard]] std::vector<value> host_half(offset_t e, offset_t h) const {
    Element* const at = host_.row(e, h * half_);
    return {at, at + size_};
  }
  [[nodiscard]] std::vector<Element*> copied(offset_t h) {
    std::vector<Element*> pointers;
    for (offset_t e = 0; e < host_.experts(); ++e) {
      own_.emplace_back(host_half(e, h));
      pointers.push_back(own_.back().data());
    }
    return pointers;
  }

  basic_expert_matrix<Element> host_;
  offset_t half_, size_;
  std::vector<on_device<value>> own_;
  on_device<Element*> gates_, ups_;
};

}  // namespace shunt::test
