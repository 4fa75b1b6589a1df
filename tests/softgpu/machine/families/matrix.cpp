// ldmatrix, stmatrix, movmatrix: PTX manual, "Warp-level matrix load". Lane 8·m + r names row r of
// matrix m; lane l gets row l/4, columns 2·(l%4) and the next.
#include <bit>
#include <cstring>

#include "checks/faults.hpp"
#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"

namespace softgpu {
namespace {

/// All living lanes of the warp must be here: waits for them.
bool whole_warp(warp& w, op const& o) {
  static constexpr lane_mask all_tokens[lanes_per_warp] = {
      all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes,
      all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes,
      all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes,
      all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes};
  w.mask = w.meet(all_tokens, o);
  if (w.mask == 0) return false;
  if (w.mask != all_lanes)
    raise_fault(w, o, w.mask, fault::inactive_lane,
                "a matrix instruction is executed by " + std::to_string(std::popcount(w.mask)) +
                    " lanes: it takes all 32");
  return true;
}

constexpr int transposed = 1 << 8;  // in aux, beside the number of matrices

void move_matrices(warp& w, op const& o, bool is_load) {
  if (!whole_warp(w, o)) return;
  int const count = static_cast<int>(o.aux & 7);
  bool const trans = (o.aux & transposed) != 0;
  access a(w, o, static_cast<ptx::space>(o.aux >> 16),
           is_load ? access_kind::load : access_kind::store, 16);
  a.lanes &= count == 4 ? all_lanes : (lane_mask{1} << (8 * count)) - 1;
  if (a.lanes == 0) return;
  fill_addresses(a);
  lane_mask const good = admit(a);
  ref const* const rows = w.here.code->extras.data() + o.extra;
  for (int m = 0; m < count; ++m) {
    std::uint16_t tile[8][8] = {};
    std::uint32_t* const d = w.row<std::uint32_t>(rows[m]);
    auto const element = [&](int i, int k) -> std::uint16_t& {
      int const r = i / 4, c = 2 * (i % 4) + k;
      return trans ? tile[c][r] : tile[r][c];
    };
    if (!is_load)
      for (int i = 0; i < lanes_per_warp; ++i)
        for (int k = 0; k < 2; ++k) element(i, k) = static_cast<std::uint16_t>(d[i] >> (16 * k));
    for (int r = 0; r < 8; ++r) {
      if ((good >> (8 * m + r) & 1) == 0) continue;
      std::byte* const line = a.host[8 * m + r];
      is_load ? std::memcpy(tile[r], line, 16) : std::memcpy(line, tile[r], 16);
    }
    if (is_load)
      for (int i = 0; i < lanes_per_warp; ++i)
        if (w.mask >> i & 1) d[i] = element(i, 0) | std::uint32_t{element(i, 1)} << 16;
  }
}
void load(warp& w, op const& o) { move_matrices(w, o, true); }
void store(warp& w, op const& o) { move_matrices(w, o, false); }

void build(builder& b, bool is_load) {
  std::string_view const x = b.one_of({"x1", "x2", "x4"});
  ptx::operand const& value = b.operand(is_load ? 0 : 1);
  std::vector<ref> rows;
  auto const add = [&](ptx::operand const& v) {
    rows.push_back(is_load ? b.output(v, {'b', 32}) : b.input(v, {'b', 32}));
  };
  if (value.kind == ptx::operand_kind::vector)
    for (ptx::operand const& v : value.parts) add(v);
  else
    add(value);
  if (rows.size() != std::size_t(x[1] - '0'))
    b.fail("the vector has the wrong number of registers");
  op address;
  ptx::space const named = space_of(b);
  b.address(address, b.operand(is_load ? 1 : 0), named);
  op& o = b.emit(is_load ? &load : &store);
  o.a = address.a, o.value = address.value, o.flags = address.flags;
  o.aux = static_cast<std::uint32_t>(rows.size()) | (b.has("trans") ? transposed : 0u) |
          static_cast<std::uint32_t>(named) << 16;
  for (ref const r : rows) b.extra(o, r);
}
void build_load(builder& b) { build(b, true); }
void build_store(builder& b) { build(b, false); }

void transpose(warp& w, op const& o) {
  if (!whole_warp(w, o)) return;
  std::uint32_t const* const a = w.row<std::uint32_t>(o.a);
  std::uint32_t* const d = w.row<std::uint32_t>(o.d);
  std::uint16_t tile[8][8];
  for (int i = 0; i < lanes_per_warp; ++i)
    for (int k = 0; k < 2; ++k)
      tile[i / 4][2 * (i % 4) + k] = static_cast<std::uint16_t>(a[i] >> (16 * k));
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1)
      d[i] = tile[2 * (i % 4)][i / 4] | std::uint32_t{tile[2 * (i % 4) + 1][i / 4]} << 16;
}
void build_transpose(builder& b) {
  ref const d = b.output(0, {'b', 32}), a = b.input(1, {'b', 32});
  op& o = b.emit(&transpose);
  o.d = d, o.a = a;
}

constexpr form rows[] = {
    {"ldmatrix.sync.aligned.m8n8.x1|x2|x4{.trans}{.shared|shared::cta}.b16 d, [a]", kind::memory,
     build_load},
    {"stmatrix.sync.aligned.m8n8.x1|x2|x4{.trans}{.shared|shared::cta}.b16 [a], b", kind::memory,
     build_store},
    {"movmatrix.sync.aligned.m8n8.trans.b16 d, a", kind::move, build_transpose},
};

}  // namespace

std::span<form const> matrix_family() { return rows; }

}  // namespace softgpu
