#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layer_tensors.hpp"
#include "shunt/experts.hpp"
#include "shunt/pack_int4.hpp"
#include "stored_matrix.hpp"
#include "used_tensors.hpp"

namespace checkpoint {

/// What the formats are called that checkpoints are published in.
template <shunt::quantized F> inline constexpr std::string_view name_of_format = "mxfp4";
template <> inline constexpr std::string_view name_of_format<shunt::fp8_block> = "fp8";
template <> inline constexpr std::string_view name_of_format<shunt::nvfp4> = "nvfp4";
template <> inline constexpr std::string_view name_of_format<shunt::int4_group<32>> = "int4";
template <> inline constexpr std::string_view name_of_format<shunt::int4_group<128>> = "int4";

/// Refuses what pack() cannot take as it is stored, with a sentence that names the tensor.
template <shunt::quantized F> void must_fit(layer_tensors const& tensors, stored_matrix const& m) {
  auto const refuse = [&](tensor const& t, std::string const& is, std::string const& must) {
    tensors.refuse("tensor " + quotable(t.name) + " " + is + "; as stored, " +
                   std::string(name_of_format<F>) + " experts " + must +
                   ". Load the layer as bf16 or float instead");
  };
  std::string const kind = "is " + m.values->kind;
  if constexpr (std::same_as<F, shunt::fp8_block>) {
    if (m.values->kind != "F8_E4M3") refuse(*m.values, kind, "are all F8_E4M3");
    if (m.block_rows != 128 || m.block_columns != 128) {
      refuse(*m.values,
             "has a scale for each " + std::to_string(m.block_rows) + " x " +
                 std::to_string(m.block_columns),
             "have one for each 128 x 128");
    }
  } else if constexpr (shunt::detail::is_int4<F>) {
    constexpr std::uint64_t group = shunt::detail::packing<F>::block;
    if (m.integers == stored_matrix::words::none) refuse(*m.values, kind, "are all of I32");
    if (m.block_columns != group) {
      refuse(*m.values, "has groups of " + std::to_string(m.block_columns),
             "are all in groups of " + std::to_string(group));
    }
  } else if constexpr (std::same_as<F, shunt::nvfp4>) {
    if (!m.packed) refuse(*m.values, kind, "are all two numbers a byte");
    if (m.scales->kind != "F8_E4M3") {
      refuse(*m.scales, "is " + m.scales->kind, "have scales of F8_E4M3");
    }
  } else {
    if (!m.packed) refuse(*m.values, kind, "are all two numbers a byte");
    if (m.scales->kind != "F8_E8M0" && m.scales->kind != "U8") {
      refuse(*m.scales, "is " + m.scales->kind, "have scales of F8_E8M0");
    }
  }
}

/// An expert's matrix of 4-bit integers.
template <int Group>
[[nodiscard]] shunt::status pack_integers(shunt::on_host const& on, stored_matrix const& m,
                                          shunt::view<shunt::int4_group<Group>, 1> to,
                                          std::optional<shunt::pair_layout> pairs) {
  auto const N = static_cast<shunt::offset_t>(m.rows);
  auto const K = static_cast<shunt::offset_t>(m.columns);
  shunt::offset_t const groups = (K + Group - 1) / Group;
  std::vector<float> scales(static_cast<std::size_t>(N * groups));
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = detail::scale_at(*m.scales, i);
  if (m.integers == stored_matrix::words::rows) {
    std::vector<std::uint8_t> zeros;
    for (std::uint64_t r = 0; r < m.rows; ++r) {
      for (std::uint64_t g = 0; g < blocks_of(m.columns, Group); ++g) {
        zeros.push_back(static_cast<std::uint8_t>(detail::zero_at(m, r, g)));
      }
    }
    auto const* const numbers = reinterpret_cast<std::uint8_t const*>(m.values->data);
    return shunt::pack_int4(on, shunt::view<std::uint8_t const, 3>(numbers, {{1, N, K / 2}}),
                            shunt::view<float const, 3>(scales.data(), {{1, N, groups}}),
                            shunt::view<std::uint8_t const, 3>(zeros.data(), {{1, N, groups}}), to,
                            pairs);
  }
  auto const words = [](tensor const& t) {  // files may put them at any address
    std::vector<std::int32_t> w(static_cast<std::size_t>(t.bytes / 4));
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = detail::number_at<std::int32_t>(t.data, i);
    return w;
  };
  std::vector<std::int32_t> const numbers = words(*m.values), zeros = words(*m.zeros);
  shunt::view<std::int32_t const, 3> const zero(zeros.data(), {{1, groups, N / 8}});
  shunt::view<float const, 3> const scale(scales.data(), {{1, groups, N}});
  if (m.integers == stored_matrix::words::awq) {
    return shunt::pack_awq(on, shunt::view<std::int32_t const, 3>(numbers.data(), {{1, K, N / 8}}),
                           zero, scale, to, pairs);
  }
  return shunt::pack_gptq(on, shunt::view<std::int32_t const, 3>(numbers.data(), {{1, K / 8, N}}),
                          zero, scale, to, pairs, m.zero_less);
}

/// Packs a matrix that fits, [experts · rows, columns], into the bytes that its handle asks for.
template <shunt::quantized F>
[[nodiscard]] shunt::status pack(shunt::on_host const& on, stored_matrix const& m,
                                 std::uint64_t experts, shunt::view<F, 1> to,
                                 std::optional<shunt::pair_layout> pairs) {
  auto const E = static_cast<shunt::offset_t>(experts);
  auto const N = static_cast<shunt::offset_t>(m.rows / experts);
  auto const K = static_cast<shunt::offset_t>(m.columns);
  auto const bytes_of = [](tensor const& t) {
    return reinterpret_cast<std::uint8_t const*>(t.data);
  };
  if constexpr (std::same_as<F, shunt::fp8_block>) {
    shunt::offset_t const high = (N + 127) / 128, wide = (K + 127) / 128;
    std::vector<float> scales(static_cast<std::size_t>(E * high * wide));
    for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = detail::scale_at(*m.scales, i);
    auto const* const numbers = reinterpret_cast<shunt::fp8_e4m3 const*>(m.values->data);
    return shunt::pack_fp8(on, shunt::view<shunt::fp8_e4m3 const, 3>(numbers, {{E, N, K}}),
                           shunt::view<float const, 3>(scales.data(), {{E, high, wide}}), to,
                           pairs);
  } else if constexpr (shunt::detail::is_int4<F>) {
    return pack_integers(on, m, to, pairs);
  } else if constexpr (std::same_as<F, shunt::nvfp4>) {
    std::vector<float> const of_tensor(static_cast<std::size_t>(E), m.of_tensor);
    auto const* const scales = reinterpret_cast<shunt::fp8_e4m3 const*>(m.scales->data);
    return shunt::pack_nvfp4(
        on, shunt::view<std::uint8_t const, 3>(bytes_of(*m.values), {{E, N, K / 2}}),
        shunt::view<shunt::fp8_e4m3 const, 3>(scales, {{E, N, K / 16}}),
        shunt::view<float const, 1>(of_tensor.data(), {{E}}), to, pairs);
  } else {
    return shunt::pack_mxfp4(
        on, shunt::view<std::uint8_t const, 4>(bytes_of(*m.values), {{E, N, K / 32, 16}}),
        shunt::view<std::uint8_t const, 3>(bytes_of(*m.scales), {{E, N, K / 32}}), to, pairs);
  }
}

/// The matrices of experts in their own format, numbers and scales as they are, never through float:
/// of one tensor that holds all, or of one or two (the halves of its pairs) for each expert. Halves
/// are packed by themselves, since each has panels of its own.
template <shunt::quantized F>
[[nodiscard]] shunt::expert_matrix<F> packed(shunt::on_host const& on, layer_tensors const& tensors,
                                             std::span<stored_matrix const> all,
                                             std::uint64_t experts,
                                             std::optional<shunt::pair_layout> pairs,
                                             owned_memory& own) {
  std::uint64_t rows = 0;
  for (stored_matrix const& m : all) {
    must_fit<F>(tensors, m);
    rows += m.rows;
  }
  auto const E = static_cast<shunt::offset_t>(experts);
  auto const N = static_cast<shunt::offset_t>(rows / experts);
  auto const K = static_cast<shunt::offset_t>(all[0].columns);
  auto const handle = [&](F const* data) {
    using matrix = shunt::expert_matrix<F>;
    return pairs ? matrix::packed(data, E, N, K, *pairs) : matrix::packed(data, E, N, K);
  };
  shunt::offset_t const bytes = handle(nullptr).packed_elements();
  shunt::offset_t const piece = bytes / static_cast<shunt::offset_t>(all.size());
  bool const halves = all.size() > experts;
  F* const data = own.take<F>(static_cast<std::uint64_t>(bytes));
  F* to = data;
  for (stored_matrix const& m : all) {
    shunt::status const done =
        pack(on, m, all.size() == 1 ? experts : 1, shunt::view<F, 1>(to, {{piece}}),
             halves ? std::nullopt : pairs);
    if (!done.ok()) tensors.refuse(done.message());
    to += piece;
  }
  return handle(data);
}

}  // namespace checkpoint
