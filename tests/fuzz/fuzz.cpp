// libFuzzer's target (and, with replay.cpp, an ordinary test): shapes, options and data made of
// bytes, sensible or not. The router, the plan, the moves and the layer either refuse with a sentence
// and leave their outputs alone, or keep their contracts:
//   ids in range and distinct, gates finite; a plan whose two maps are inverse to each other; the
//   same bits with one thread and portable code as with three threads and the best instruction set.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <shunt/shunt.hpp>

#include "support/random.hpp"

namespace {

using shunt::index_t;

[[noreturn]] void broken(char const* what) {
  std::fprintf(stderr, "broken contract: %s\n", what);
  std::abort();
}
void must(bool holds, char const* what) {
  if (!holds) broken(what);
}

/// The input, read from front to back; zeros behind its end.
class reader {
 public:
  reader(std::uint8_t const* data, std::size_t size) : data_(data), size_(size) {}
  std::uint8_t byte() { return at_ < size_ ? data_[at_++] : std::uint8_t{0}; }
  /// In [0, n); n ≤ 256.
  int below(int n) { return byte() % n; }
  bool flag() { return (byte() & 1) != 0; }
  bool rarely() { return byte() > 230; }
  /// Any float at all: every fourth byte a wild one.
  float number() {
    std::uint8_t const kind = byte();
    if (kind < 192) return (static_cast<float>(kind) - 96.0f) / 16.0f;
    std::uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) bits = bits << 8 | byte();
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  bool more() const { return at_ < size_; }

 private:
  std::uint8_t const* data_;
  std::size_t size_, at_ = 0;
};

/// Which sentence it is: how much scratch an arena must have depends on the number of threads.
std::string without_digits(std::string sentence) {
  std::erase_if(sentence, [](char c) { return c >= '0' && c <= '9'; });
  return sentence;
}

/// The same bits; one NaN is as good as another.
template <class T> bool same(std::vector<T> const& a, std::vector<T> const& b) {
  bool equal = a.size() == b.size();
  for (std::size_t i = 0; equal && i < a.size(); ++i) {
    equal = std::memcmp(&a[i], &b[i], sizeof(T)) == 0 || (a[i] != a[i] && b[i] != b[i]);
  }
  return equal;
}

template <class T> shunt::view<T, 2> matrix(std::vector<T>& v, index_t rows, index_t columns) {
  return {v.data(), {{rows, columns}}};
}

std::size_t product(index_t a, index_t b, index_t c = 1) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
}

constexpr float mark = -77.0f;  // what outputs hold before a call

struct problem {
  index_t tokens, hidden, intermediate, experts, top_k;
  shunt::route_options route;
  std::vector<float> logits, x, gate_weight, up, down;
  std::vector<std::uint8_t> valid;
  index_t capacity, multiple, first_expert, shard;
  shunt::drop_policy drop;
  std::size_t missing_scratch;  // bytes by which the router's arena is too small
};

problem read(reader& in) {
  problem p{};
  p.tokens = in.below(20);
  p.experts = in.rarely() ? 130 : 1 + in.below(12);
  p.top_k = in.rarely() ? in.below(16) : 1 + in.below(std::min<index_t>(p.experts, 8));
  p.hidden = 1 + in.below(40);
  p.intermediate = 1 + in.below(24);
  p.route.score = static_cast<shunt::score_kind>(in.below(4));
  p.route.gates = static_cast<shunt::gate_kind>(in.below(3));
  p.route.groups = 1 + in.below(4);
  p.route.top_groups = 1 + in.below(4);
  p.route.group_by = static_cast<shunt::group_rule>(in.below(2));
  p.route.jitter = in.rarely() ? in.number() : 0.0f;
  p.route.random_second = in.rarely();
  p.route.scale = in.rarely() ? in.number() : 1.0f;
  p.route.seed = in.byte();
  p.capacity = in.flag() ? 0 : 1 + in.below(6);
  p.multiple = in.rarely() ? in.below(9) : 1;
  p.drop = static_cast<shunt::drop_policy>(in.below(3));
  p.first_expert = in.rarely() ? in.below(8) : 0;
  p.shard = in.rarely() ? 1 + in.below(p.experts) : p.experts;
  p.missing_scratch = in.rarely() ? std::size_t{64} * in.byte() : 0;
  bool const masked = in.flag();

  shunt::test::rng rng(in.byte());
  auto const fill = [&](std::vector<float>& v, std::size_t count) {
    v.resize(count);
    for (float& value : v) value = static_cast<float>(rng.uniform(-1, 1));
  };
  fill(p.x, product(p.tokens, p.hidden));
  fill(p.gate_weight, product(p.experts, p.hidden));
  fill(p.up, product(p.experts, 2 * p.intermediate, p.hidden));
  fill(p.down, product(p.experts, p.hidden, p.intermediate));
  fill(p.logits, product(p.tokens, p.experts));
  for (int t = 0; masked && t < p.tokens; ++t) p.valid.push_back(in.flag());
  for (float& value : p.logits) {
    if (!in.more()) break;
    value = in.number();
  }
  return p;
}

struct outcome {
  bool routed = false, plan_fixture = false;
  std::string said;
  std::vector<index_t> expert, offset, row_slot, slot_row;
  std::vector<float> gate, rows, y, layer;
};

void check_choice(problem const& p, outcome const& o) {
  for (index_t t = 0; t < p.tokens; ++t) {
    for (index_t k = 0; k < p.top_k; ++k) {
      std::size_t const slot = product(t, p.top_k) + static_cast<std::size_t>(k);
      index_t const e = o.expert[slot];
      must(e >= -1 && e < p.experts, "an expert id is out of range");
      must(e >= 0 || o.gate[slot] == 0.0f, "a slot without an expert has a gate");
      bool const bounded = p.route.score == shunt::score_kind::softmax ||
                           p.route.score == shunt::score_kind::sigmoid ||
                           p.route.gates == shunt::gate_kind::softmax_chosen;
      must(!bounded || p.route.scale != 1.0f || std::isfinite(o.gate[slot]),
           "a gate of bounded scores is not finite");
      must(p.valid.empty() || p.valid[static_cast<std::size_t>(t)] != 0 || e == -1,
           "padding got an expert");
      for (index_t j = 0; j < k; ++j) {
        must(e == -1 || o.expert[slot - 1 - static_cast<std::size_t>(j)] != e,
             "one token chose an expert twice");
      }
    }
  }
}

void check_plan(problem const& p, outcome const& o) {
  must(o.offset.front() == 0, "the first segment does not begin at 0");
  for (std::size_t e = 1; e < o.offset.size(); ++e) {
    must(o.offset[e - 1] <= o.offset[e], "a segment has less than no rows");
    index_t last = -1;
    for (index_t r = o.offset[e - 1]; r < o.offset[e]; ++r) {
      index_t const slot = o.row_slot[static_cast<std::size_t>(r)];
      if (slot < 0) continue;
      must(slot > last, "the rows of an expert are not in slot order");
      last = slot;
      must(o.slot_row[static_cast<std::size_t>(slot)] == r, "row and slot are not inverse");
      must(o.expert[static_cast<std::size_t>(slot)] == p.first_expert + static_cast<index_t>(e) - 1,
           "a row stands with another expert");
    }
    must(p.capacity == 0 || p.multiple != 1 || o.offset[e] - o.offset[e - 1] <= p.capacity,
         "an expert has more rows than its capacity");
  }
}

outcome run(problem& p, shunt::on_host const& on) {
  outcome o;
  std::size_t const slots = product(p.tokens, p.top_k);
  o.expert.assign(slots, -99);
  o.gate.assign(slots, mark);
  shunt::routing<> chosen;
  chosen.expert = matrix(o.expert, p.tokens, p.top_k);
  chosen.gate = matrix(o.gate, p.tokens, p.top_k);
  shunt::route_inputs<> with;
  with.valid = p.valid;
  std::size_t const need =
      shunt::route_scratch_bytes(on, {.tokens = p.tokens, .experts = p.experts, .top_k = p.top_k});
  std::vector<std::byte> scratch(need > p.missing_scratch ? need - p.missing_scratch : 0);
  shunt::status const routed =
      shunt::route(on, matrix(p.logits, p.tokens, p.experts), with, chosen, scratch, p.route);
  o.said = routed.message();
  if (!routed.ok()) {
    must(!o.said.empty(), "route refuses without a sentence");
    must(o.gate == std::vector<float>(slots, mark), "route refuses, and writes");
    return o;
  }
  o.routed = true;
  check_choice(p, o);

  shunt::plan_options<> options;
  options.capacity = p.capacity;
  options.segment_multiple = p.multiple;
  options.drop = p.drop;
  options.gate = chosen.gate;
  options.valid = with.valid;
  options.first_expert = p.first_expert;
  shunt::shape const local{.tokens = p.tokens, .experts = p.shard, .top_k = p.top_k};
  o.offset.assign(static_cast<std::size_t>(p.shard) + 1, -99);
  o.row_slot.assign(
      p.multiple < 1 ? slots : static_cast<std::size_t>(shunt::plan_rows_bound(local, options)),
      -99);
  o.slot_row.assign(slots, -99);
  shunt::dispatch_plan<> plan{.offset = o.offset, .row_slot = o.row_slot, .slot_row = o.slot_row};
  plan.tokens = p.tokens;
  plan.top_k = p.top_k;
  std::vector<std::byte> work(shunt::plan_scratch_bytes(on, local, options));
  shunt::status const plan_fixture = shunt::plan_dispatch(on, chosen.expert, plan, work, options);
  o.said += plan_fixture.message();
  if (!plan_fixture.ok()) {
    must(plan_fixture.message()[0] != 0, "plan_dispatch refuses without a sentence");
    must(o.slot_row == std::vector<index_t>(slots, -99), "plan_dispatch refuses, and writes");
    return o;
  }
  o.plan_fixture = true;
  check_plan(p, o);

  index_t const rows = static_cast<index_t>(o.row_slot.size());
  o.rows.assign(product(rows, p.hidden), 0.0f);
  o.y.assign(p.x.size(), mark);
  auto const moved = matrix(o.rows, rows, p.hidden);
  must(shunt::dispatch(on, matrix(p.x, p.tokens, p.hidden), plan, moved).ok(), "dispatch refuses");
  must(shunt::combine(on, moved, plan, chosen.gate, matrix(o.y, p.tokens, p.hidden)).ok(),
       "combine refuses");
  return o;
}

std::vector<float> run_layer(problem& p, shunt::on_host const& on, std::string& said) {
  std::vector<float> y(p.x.size(), mark);
  shunt::moe_weights<float> const weights{
      .gate = matrix(p.gate_weight, p.experts, p.hidden),
      .up = shunt::view<float const, 3>(p.up.data(), {{p.experts, 2 * p.intermediate, p.hidden}}),
      .down = shunt::view<float const, 3>(p.down.data(), {{p.experts, p.hidden, p.intermediate}})};
  shunt::layer_options<> const options{.top_k = p.top_k, .route = p.route};
  std::vector<std::byte> work(shunt::moe_layer_scratch_bytes(on, p.tokens, weights, options));
  shunt::status const done = shunt::moe_layer(on, matrix(p.x, p.tokens, p.hidden), weights,
                                              matrix(y, p.tokens, p.hidden), work, options);
  said = done.message();
  must(done.ok() || (!said.empty() && y == std::vector<float>(y.size(), mark)),
       "moe_layer refuses without a sentence, or writes");
  return y;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  reader in(data, size);
  problem p = read(in);
  shunt::on_host const one{.threads = 1, .instructions = shunt::isa::portable};
  shunt::on_host const three{.threads = 3};

  outcome const a = run(p, one), b = run(p, three);
  must(without_digits(a.said) == without_digits(b.said) && a.routed == b.routed &&
           a.plan_fixture == b.plan_fixture,
       "two policies disagree about the arguments");
  must(same(a.expert, b.expert) && same(a.gate, b.gate), "the choice depends on the policy");
  must(same(a.offset, b.offset) && same(a.slot_row, b.slot_row) && same(a.row_slot, b.row_slot),
       "the plan depends on the policy");
  must(same(a.rows, b.rows) && same(a.y, b.y), "rows or tokens depend on the policy");

  std::string said_one, said_three;
  std::vector<float> const y = run_layer(p, one, said_one);
  must(same(y, run_layer(p, three, said_three)) && said_one == said_three,
       "the layer depends on the policy");
  return 0;
}
