// libFuzzer's target (and, with replay.cpp, an ordinary test) of what ranks tell each other: the messages and
// rows of the others are bytes of the input, sensible or not. A plan is refused with a sentence, or it stays
// within the memory that the rank has; what is moved after it does too; and so does the layer.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <shunt/across.hpp>

namespace {

using shunt::index_t, shunt::offset_t, shunt::view;

void must(bool holds, char const* what) {
  if (holds) return;
  std::fprintf(stderr, "broken contract: %s\n", what);
  std::abort();
}

/// The input, read from front to back; zeros behind its end.
class reader {
 public:
  reader(std::uint8_t const* data, std::size_t size) : data_(data), size_(size) {}
  std::uint8_t byte() { return at_ < size_ ? data_[at_++] : std::uint8_t{0}; }
  int below(int n) { return byte() % n; }
  bool flag() { return (byte() & 1) != 0; }
  bool more() const { return at_ < size_; }

 private:
  std::uint8_t const* data_;
  std::size_t size_, at_ = 0;
};

/// A rank whose peers say what this one says, but for bytes that the input changes.
class garbled_ranks {
 public:
  static constexpr shunt::space memory = shunt::space::host;
  garbled_ranks(reader& from, int rank, int ranks) : from_(&from), rank_(rank), ranks_(ranks) {}

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int ranks() const noexcept { return ranks_; }

  shunt::status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    if (out == nullptr) return {};
    auto* const to = static_cast<std::byte*>(out);
    for (int r = 0; r < ranks_; ++r) {
      std::memcpy(to + static_cast<std::size_t>(r) * bytes, in, bytes);
    }
    for (int edits = from_->below(12); edits > 0 && bytes >= sizeof(index_t); --edits)
      change(to, bytes);
    return {};
  }
  shunt::status begin(shunt::exchange_rows const& rows) noexcept {
    if (auto bad = shunt::detail::check_exchange("begin", rows, rank_, ranks_); !bad.ok())
      return bad;
    // Every byte that is sent is read, every byte that may come is written: a sanitizer sees the first too far.
    unsigned sum = 0;
    auto const* const send = static_cast<unsigned char const*>(rows.send);
    for (offset_t i = 0; i < rows.send_start[ranks_] * static_cast<offset_t>(rows.row_bytes); ++i) {
      sum += send[i];
    }
    sink = sum;
    auto* const recv = static_cast<unsigned char*>(rows.recv);
    for (int r = 0; r < ranks_; ++r) {
      must(rows.recv_start[r] >= 0 && rows.recv_start[r] <= rows.recv_start[r + 1], "rows ascend");
      must(rows.send_start[r] >= 0 && rows.send_start[r] <= rows.send_start[r + 1], "rows ascend");
    }
    unsigned char const value = from_->byte();
    for (offset_t i = 0; i < rows.recv_start[ranks_] * static_cast<offset_t>(rows.row_bytes); ++i) {
      recv[i] = value;
    }
    return {};
  }
  shunt::status finish() noexcept { return {}; }
  shunt::status carry(void* out, std::size_t bytes) noexcept {
    if (rank_ > 0) std::memset(out, from_->byte(), bytes);
    return {};
  }
  shunt::status pass_on(void const*, std::size_t) noexcept { return {}; }

 private:
  /// Four bytes of one rank's message: of its header, or of its first counts.
  void change(std::byte* messages, std::size_t bytes) noexcept {
    constexpr std::size_t header = sizeof(shunt::detail::rank_header);
    std::size_t const of = static_cast<std::size_t>(from_->below(ranks_)) * bytes;
    std::size_t at = static_cast<std::size_t>(from_->byte()) * sizeof(index_t);
    if (bytes > header && from_->flag()) {
      at = from_->flag() ? header + at % 64
                         : offsetof(shunt::detail::rank_header, numbers) + at % 64;
    }
    index_t value = from_->byte();
    if (from_->below(4) == 0) {
      std::uint32_t wild = 0;
      for (int i = 0; i < 4; ++i) wild = wild << 8 | from_->byte();
      std::memcpy(&value, &wild, sizeof value);
    }
    std::memcpy(messages + of + std::min(at, bytes - sizeof value), &value, sizeof value);
  }

  volatile unsigned sink = 0;
  reader* from_;
  int rank_, ranks_;
};
static_assert(shunt::exchange<garbled_ranks>);

/// Experts on ranks, some of them with copies.
struct placement {
  std::vector<index_t> start{0}, expert;
  index_t experts;

  placement(reader& from, int ranks) : experts(1 + from.below(7)) {
    for (int r = 0; r < ranks; ++r) {
      for (index_t e = 0; e < experts; ++e) {
        if (e % ranks == r || from.below(8) == 0) expert.push_back(e);
      }
      start.push_back(static_cast<index_t>(expert.size()));
    }
  }
  [[nodiscard]] shunt::expert_placement view_of() const {
    return {view<index_t const, 1>(start), view<index_t const, 1>(expert), experts};
  }
};

/// A plan that was made: both maps are within their memory and inverse to each other.
void check_plan(shunt::across_plan const& plan, offset_t room, int ranks) {
  offset_t const rows = plan.rows_received();
  must(plan.recv_start[0] == 0 && plan.send_start[0] == 0, "rows begin at 0");
  for (int r = 0; r < ranks; ++r) {
    must(plan.recv_start[r] <= plan.recv_start[r + 1], "received rows ascend");
    must(plan.send_start[r] <= plan.send_start[r + 1], "sent rows ascend");
  }
  must(rows >= 0 && rows <= room, "there is room for what comes");
  must(plan.rows_sent() <= plan.to.row_slot.extent(0), "there is room for what is sent");
  index_t const experts = plan.here.experts();
  must(plan.here.offset[experts] == rows, "every row that comes has an expert");
  for (offset_t slot = 0; slot < rows; ++slot) {
    index_t const row = plan.here.slot_row[slot];
    must(row >= 0 && row < rows && plan.here.row_slot[row] == slot, "the maps are inverse");
  }
}

void plan_and_rows(reader& from, shunt::among_ranks<garbled_ranks> const& among) {
  int const T = from.below(7), K = 1 + from.below(3), H = 1 + from.below(3);
  shunt::across_plan_options o{
      .capacity = from.flag() ? from.below(5) : 0,
      .drop = from.flag() ? shunt::drop_policy::by_choice : shunt::drop_policy::by_position,
      .zero_experts = from.below(3)};
  std::vector<index_t> ids(static_cast<std::size_t>(T * K));
  for (index_t& id : ids) id = from.below(10) - 1;
  std::vector<std::byte> held, work(shunt::plan_across_scratch_bytes(among, T, K, o));
  auto measured = shunt::arena<>::measuring();
  static_cast<void>(shunt::carve_across_plan(measured, among, T, K, o.capacity));
  held.resize(measured.needed());
  shunt::arena<> bytes(held);
  auto const plan = shunt::carve_across_plan(bytes, among, T, K, o.capacity);
  auto const made = shunt::plan_across(shunt::on_host{.threads = 1}, among,
                                       view<index_t const, 2>(ids.data(), T, K), plan, work, o);
  if (!made.ok()) return must(made.message()[0] != '\0', "an error has a sentence");
  check_plan(plan, plan.here.row_slot.extent(0), among.transport.ranks());

  auto const sent = static_cast<std::size_t>(plan.rows_sent() * H),
             came = static_cast<std::size_t>(plan.rows_received() * H);
  std::vector<float> x(static_cast<std::size_t>(T * H), 1.0f), received(came), returned(sent);
  std::vector<std::byte> scratch(std::max(shunt::send_rows_scratch_bytes<float>(plan, H),
                                          shunt::return_rows_scratch_bytes<float>(plan, H)));
  shunt::on_host const on{.threads = 1};
  auto const rows = plan.rows_received();
  static_cast<void>(shunt::send_rows(on, among, plan, view<float const, 2>(x.data(), T, H),
                                     view<float, 2>(received.data(), rows, H), scratch));
  static_cast<void>(
      shunt::return_rows(on, among, plan, view<float const, 2>(received.data(), rows, H),
                         view<float, 2>(returned.data(), plan.rows_sent(), H), scratch));
}

void layer(reader& from, shunt::among_ranks<garbled_ranks> const& among) {
  index_t const T = from.below(5), H = 2, I = 2, E = among.placement.experts;
  auto const L = among.placement.on_rank(among.transport.rank());
  shunt::layer_options<> const o{
      .top_k = std::min<index_t>(E, 1 + from.below(2)),
      .capacity = from.flag() ? from.below(4) : 0,
      .memory = from.flag() ? shunt::memory_mode::recompute : shunt::memory_mode::save,
      .balance_loss = from.flag() ? 0.5f : 0.0f,
      .z_loss = from.flag() ? 0.5f : 0.0f};
  auto const numbers = [&](offset_t count) {
    std::vector<float> v(static_cast<std::size_t>(count));
    for (float& f : v) f = static_cast<float>(from.byte() % 8) - 4.0f;
    return v;
  };
  auto const gate = numbers(E * H), up = numbers(L * 2 * I * H), down = numbers(L * H * I),
             x = numbers(T * H);
  shunt::moe_weights<float> const w{.gate = view(gate.data(), E, H),
                                    .up = view(up.data(), L, 2 * I, H),
                                    .down = view(down.data(), L, H, I)};
  shunt::on_host const on{.threads = 1};
  std::vector<float> y(x.size(), 7.0f), d_x(x.size());
  std::vector<std::byte> kept(shunt::moe_across_saved_bytes(among, T, w, o)),
      work(std::max(shunt::moe_layer_across_scratch_bytes(on, among, T, w, o, true),
                    shunt::moe_layer_across_backward_scratch_bytes(on, among, T, w, o)));
  shunt::arena<> bytes(kept);
  auto const saved = shunt::carve_moe_across_saved(bytes, among, T, w, o);
  view<float const, 2> const in(x.data(), T, H);
  auto const done = shunt::moe_layer_across(on, among, in, w, view<float, 2>(y.data(), T, H),
                                            {.saved = &saved}, work, o);
  if (!done.ok()) {
    must(std::all_of(y.begin(), y.end(), [](float v) { return v == 7.0f; }), "nothing was written");
    return;
  }
  check_plan(saved.plan, saved.plan.here.row_slot.extent(0), among.transport.ranks());
  static_cast<void>(shunt::moe_layer_across_backward(
      on, among, in, w, in, saved, view<float, 2>(d_x.data(), T, H), {}, work, o));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  reader from(data, size);
  int const ranks = 2 + from.below(3), rank = from.below(ranks);
  placement const p(from, ranks);
  garbled_ranks transport(from, rank, ranks);
  shunt::across_report report;
  shunt::among_ranks<garbled_ranks> const among{.transport = transport,
                                                .placement = p.view_of(),
                                                .most_tokens = from.below(9),
                                                .most_rows = from.flag() ? from.below(20) : 0,
                                                .report = &report,
                                                .send_once = (rank + ranks) % 2 == 0};
  if (from.flag()) {
    plan_and_rows(from, among);
  } else {
    layer(from, among);
  }
  return 0;
}
