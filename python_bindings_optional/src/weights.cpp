#include "weights.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "device_call.hpp"
#include "maybe.hpp"

namespace bindings {
namespace {

bool is_list(nb::handle object) {
  return nb::isinstance<nb::list>(object) || nb::isinstance<nb::tuple>(object);
}

/// (gates, ups); a tuple of two arrays is a list of two experts.
bool is_pair_of_lists(nb::handle object) {
  return nb::isinstance<nb::tuple>(object) && nb::len(object) == 2 && is_list(object[0]) &&
         is_list(object[1]);
}

}  // namespace

std::optional<shunt::pair_layout> pairs_of(nb::handle pairs) {
  if (pairs.is_none()) return std::nullopt;
  std::pair<nb::object, nb::object> given;
  if (nb::isinstance<nb::str>(pairs)) {
    given = {nb::borrow(pairs), nb::int_(0)};
  } else if (nb::isinstance<nb::tuple>(pairs) && nb::len(pairs) == 2) {
    given = {nb::object(pairs[0]), nb::object(pairs[1])};
  }
  index_t block = 0;
  if (!given.first.is_valid() || !nb::isinstance<nb::str>(given.first) ||
      !nb::try_cast(given.second, block)) {
    throw nb::type_error("pairs must be None, an order, or (order, block)");
  }
  auto const order = nb::cast<std::string_view>(given.first);
  if (order != "gate_up" && order != "up_gate") {
    value_error("pairs: the order is '" + std::string(order) + "'; it must be gate_up or up_gate");
  }
  if (block < 0) {
    value_error("pairs: the block is " + std::to_string(block) + "; it must be 0 or more");
  }
  return shunt::pair_layout{
      order == "gate_up" ? shunt::pair_order::gate_up : shunt::pair_order::up_gate, block};
}

matrices::matrices(nb::handle object, char const* name, std::initializer_list<element> types,
                   access how, place where, nb::handle pairs)
    : pairs_(pairs_of(pairs)) {
  if (object.is_none()) return;
  if (nb::isinstance<packed_weights>(object)) {
    auto const& p = nb::cast<packed_weights const&>(object);
    if (how == access::write) {
      value_error(std::string(name) + " is packed; gradients go to plain matrices");
    }
    whole_ = array(p.data.object(), name, 1, types, how, where);
    extents_[0] = p.experts;
    extents_[1] = p.rows;
    extents_[2] = p.columns;
    pairs_ = p.pairs;
    packed_ = true;
    type_ = whole_.type();
    return;
  }
  if (!is_list(object)) {
    whole_ = array(object, name, -1, types, how, where);
    int const rank = whole_.rank();
    if (rank != 2 && rank != 3) {
      value_error(std::string(name) + " has " + std::to_string(rank) +
                  " axes; it must have 3 (experts, rows, columns)");
    }
    extents_[0] = rank == 3 ? whole_.extent(0) : 1;
    strides_[0] = rank == 3 ? whole_.stride(0) : 0;
    for (int d = 1; d < 3; ++d) {
      extents_[d] = whole_.extent(rank - 3 + d);
      strides_[d] = whole_.stride(rank - 3 + d);
    }
    type_ = whole_.type();
    return;
  }
  apart_ = is_pair_of_lists(object);
  if (apart_) {
    nb::object const gate_list = object[0], up_list = object[1];
    add(gate_list, std::string(name) + "[0]", name, types, how, where);
    std::size_t const gates = each_.size(), ups = nb::len(up_list);
    if (gates != ups) {
      value_error(std::string(name) + " has " + std::to_string(gates) + " arrays of gate and " +
                  std::to_string(ups) + " of up; it must have as many of both");
    }
    add(up_list, std::string(name) + "[1]", name, types, how, where);
    extents_[0] = static_cast<offset_t>(gates);
    extents_[1] *= 2;
    set_pairs(pairs_);
  } else {
    add(object, name, name, types, how, where);
    extents_[0] = static_cast<offset_t>(each_.size());
  }
  // A stride of 0 would be read as "dense"; no row after the first is ever looked for then.
  if (strides_[1] == 0) value_error(std::string(name) + ": the rows' stride is 0; it must not be");
  own_ = addresses();
}

void matrices::add(nb::handle list, std::string const& called, char const* name,
                   std::initializer_list<element> types, access how, place where) {
  std::size_t const count = nb::len(list);
  if (count == 0) value_error(called + " is an empty list; it must hold one array each");
  each_.reserve(each_.size() + count);
  pointers_.reserve(pointers_.size() + count);
  for (std::size_t e = 0; e < count; ++e) {
    array one(list[e], name, 2, types, how, where);
    if (each_.empty()) {
      extents_[1] = one.extent(0);
      extents_[2] = one.extent(1);
      strides_[1] = one.extent(0) > 1 ? one.stride(0) : one.extent(1);
      type_ = one.type();
    }
    bool const alike = one.type() == type_ && one.extent(0) == extents_[1] &&
                       one.extent(1) == extents_[2] &&
                       (one.extent(0) <= 1 || one.stride(0) == strides_[1]) &&
                       (one.extent(1) <= 1 || one.stride(1) == 1);
    if (!alike) {
      value_error(called + "[" + std::to_string(e) + "]: the arrays of " +
                  (apart_ ? "both lists" : "a list") +
                  " must have one type and shape, one stride from row to row, and contiguous rows");
    }
    pointers_.push_back(one.data());
    each_.push_back(std::move(one));
  }
}

void matrices::set_pairs(std::optional<shunt::pair_layout> pairs) {
  if (apart_ && pairs && (pairs->order != shunt::pair_order::gate_up || pairs->block != 0)) {
    value_error(std::string(each_.front().name()) +
                " is (gates, ups); the pairs must then be None or gate_up, without a block");
  }
  pairs_ = apart_ ? shunt::pair_layout{} : pairs;
}

address_table matrices::addresses() const {
  if (each_.empty()) return {};
  if (where() == place::host) return {pointers_.data(), {}};
  device_call& call = called();
  if (call.pointers == nullptr) return {};  // Weights are made outside of calls
  std::size_t const count = pointers_.size();
  array memory;
  void** to = nullptr;
  if (call.scratch.is_valid()) {  // from its front, and calls work in what is behind
    memory = array(call.scratch, "on_cuda.scratch", 1, {element::u8}, access::write, place::cuda);
    auto const all = static_cast<std::size_t>(memory.extent(0));
    std::size_t space = call.taken < all ? all - call.taken : 0;
    void* first = static_cast<std::byte*>(memory.data()) + call.taken;
    if (std::align(alignof(void*), count * sizeof(void*), first, space) == nullptr) {
      value_error("on_cuda.scratch has " + std::to_string(all) +
                  " bytes; the addresses of the arrays in lists need more");
    }
    to = static_cast<void**>(first);
    call.taken = all - space + count * sizeof(void*);
  } else {
    memory = output(nb::none(), each_.front().object(), "on_cuda.scratch",
                    {static_cast<offset_t>(count)}, {element::i64}, place::cuda);
    to = static_cast<void**>(memory.data());
  }
  call.pointers(to, pointers_.data(), count);
  return {to, nb::borrow(memory.object())};
}

weights::weights(nb::handle gate_, nb::handle up_, nb::handle down_, nb::handle gate_bias_,
                 nb::handle choice_bias_, nb::handle up_bias_, nb::handle down_bias_,
                 nb::handle shared_up_, nb::handle shared_down_, nb::handle shared_gate_,
                 nb::handle latent_down_, nb::handle latent_up_, nb::handle pairs,
                 nb::handle shared_pairs)
    : gate(gate_, "Weights.gate", 2, storage_types, access::keep, place::any) {
  place const at = gate.where();
  using enum access;
  auto const floats = [&](nb::handle object, char const* name, int rank) {
    return optional(object, name, rank, {element::f32}, keep, at);
  };
  gate_bias = floats(gate_bias_, "Weights.gate_bias", 1);
  choice_bias = floats(choice_bias_, "Weights.choice_bias", 1);
  if (up_.is_none() || down_.is_none()) {
    throw nb::type_error("Weights.up and Weights.down must be given");
  }
  up = matrices(up_, "Weights.up", storage_types, keep, at, pairs);
  element const t = up.type();
  auto const same = [&](nb::handle object, char const* name, int rank) {
    return optional(object, name, rank, {t}, keep, at);
  };
  down = matrices(down_, "Weights.down", {t}, keep, at, nb::none());
  up_bias = optional(up_bias_, "Weights.up_bias", 2, storage_types, keep, at);
  down_bias = optional(down_bias_, "Weights.down_bias", 2, storage_types, keep, at);
  shared_up = matrices(shared_up_, "Weights.shared_up", {t}, keep, at,
                       shared_pairs.is_none() ? pairs : shared_pairs);
  shared_down = matrices(shared_down_, "Weights.shared_down", {t}, keep, at, nb::none());
  shared_gate = same(shared_gate_, "Weights.shared_gate", 1);
  latent_down = same(latent_down_, "Weights.latent_down", 2);
  latent_up = same(latent_up_, "Weights.latent_up", 2);
  each_array([&](array const& a) {
    if (a.device() == gate.device()) return;
    value_error(std::string(a.name()) + " lies on CUDA device " + std::to_string(a.device()) +
                "; it must lie on device " + std::to_string(gate.device()) +
                ", as Weights.gate does");
  });
  if (gate.type() != t && gate.type() != element::f32) {
    throw nb::type_error((std::string("Weights.gate: its elements are ") + to_string(gate.type()) +
                          "; they must be float32 or those of up, " + to_string(t))
                             .c_str());
  }
}

void bind_weights(nb::module_& m) {
  nb::class_<packed_weights>(m, "PackedWeights")
      .def_prop_ro("data", [](packed_weights const& p) { return nb::borrow(p.data.object()); })
      .def_prop_ro("shape", [](packed_weights const& p) {
        return nb::make_tuple(p.experts, p.rows, p.columns);
      });
  nb::class_<weights>(m, "Weights")
      .def(nb::init<maybe, maybe, maybe, maybe, maybe, maybe, maybe, maybe, maybe, maybe, maybe,
                    maybe, maybe, maybe>());
}

}  // namespace bindings
