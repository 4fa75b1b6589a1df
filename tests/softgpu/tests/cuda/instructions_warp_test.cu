// Instructions of a whole warp: shfl, vote, match, redux, elect, activemask; whole warps, halves of
// one and groups with members of their own, against loops over the lanes.
#include <algorithm>

#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_warp_test {

constexpr int warps = 200;

/// Values that often agree between lanes.
std::vector<u32> values(u32 limit) {
  std::vector<u32> v(32 * warps);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = i / 32 % 3 == 0 ? u32(random_value<u32>()) : u32(random_value<u32>()) % limit;
  return v;
}
/// Members by lane: everybody, one half, or two or three groups at once.
std::vector<u32> members() {
  std::vector<u32> v;
  for (int w = 0; w < warps; ++w) {
    u32 const a = u32(random_value<u64>()), b = u32(random_value<u64>());
    u32 const groups[] = {w % 4 == 0   ? ~0u
                          : w % 4 == 1 ? 0xffff0000u
                                       : a & b,
                          w % 4 == 3 ? a & ~b : 0, w % 4 == 3 ? ~a : 0};
    for (int lane = 0; lane < 32; ++lane) {
      u32 mine = 0;
      for (u32 const g : groups)
        if (g >> lane & 1) mine = g;
      v.push_back(mine);
    }
  }
  return v;
}

// shfl: the manual's definition, word by word.
struct shuffled {
  u32 source;
  bool in_range;
};
shuffled shuffle(char const* which, u32 lane, u32 b, u32 c) {
  std::string const mode = which;
  u32 const bval = b & 31, cval = c & 31, segment = c >> 8 & 31;
  u32 const most = (lane & segment) | (cval & ~segment), least = lane & segment;
  s64 j = 0;
  bool in_range = false;
  if (mode == "up") j = s64(lane) - bval, in_range = j >= s64(most);
  if (mode == "down") j = lane + bval, in_range = j <= s64(most);
  if (mode == "bfly") j = lane ^ bval, in_range = j <= s64(most);
  if (mode == "idx") j = least | (bval & ~segment), in_range = j <= s64(most);
  return {in_range ? u32(j) : lane, in_range};
}
#define SHUFFLE(mode)                                                                   \
  __global__ void shfl_##mode(u32 const* a, u32 const* b, u32 const* c, u32* d, u32* p, \
                              u32 part) {                                               \
    unsigned const i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;  \
    if ((part >> lane & 1) == 0) return;                                                \
    u32 x = 0, y = 0;                                                                   \
    asm volatile("{.reg .pred q; shfl.sync." #mode                                      \
                 ".b32 %0|q, %2, %3, %4, %5; selp.u32 %1, 1, 0, q;}"                    \
                 : "=r"(x), "=r"(y)                                                     \
                 : "r"(a[i]), "r"(b[i]), "r"(c[i]), "r"(part));                         \
    d[i] = x;                                                                           \
    p[i] = y;                                                                           \
  }                                                                                     \
  instruction const test_##mode("shfl_" #mode, [] { check_shuffle(#mode, shfl_##mode); });
void check_shuffle(char const* mode,
                   void (*kernel)(u32 const*, u32 const*, u32 const*, u32*, u32*, u32)) {
  auto const a = values(1u << 30), distances = values(32);
  for (u32 const part : {~0u, 0xffffu, 0xff00ff00u}) {
    // Segments of 32, 16, 8, 4 lanes; parts of a warp only in segments that lie in them.
    std::vector<u32> b = distances, c;
    for (std::size_t i = 0; i < a.size(); ++i) {
      u32 const width = part == ~0u ? 32u >> i / 32 % 4 : part == 0xffffu ? 16 : 8;
      if (part != ~0u) b[i] %= width;  // bfly would leave the segment
      c.push_back((32 - width) << 8 | (std::string(mode) == "up" ? 0 : 31));
      if (part == ~0u && i / 32 % 8 == 7) c.back() = u32(random_value<u32>());
    }
    buffer<u32> const da(a), db(b), dc(c), d(std::vector<u32>(a.size(), 7)),
        p(std::vector<u32>(a.size(), 7));
    kernel<<<warps / 4, 128>>>(da.data, db.data, dc.data, d.data, p.data, part);
    if (!device_is_done()) return;
    auto const got = d.host(), inside = p.host();
    for (std::size_t i = 0, wrong = 0; i < a.size() && wrong < 3; ++i) {
      u32 const lane = u32(i % 32);
      bool const takes = (part >> lane & 1) != 0;
      shuffled const s = shuffle(mode, lane, b[i], c[i]);
      u32 const expected = takes ? a[i - lane + s.source] : 7, range = takes ? s.in_range : 7;
      if (got[i] == expected && inside[i] == range) continue;
      ++wrong;
      complain("lane " + std::to_string(lane) + ", " + hex(b[i]) + ", " + hex(c[i]) + ": got " +
               hex(got[i]) + " and " + hex(inside[i]) + ", expected " + hex(expected) + " and " +
               hex(range));
    }
  }
}
SHUFFLE(up)
SHUFFLE(down)
SHUFFLE(bfly)
SHUFFLE(idx)

// The others: a value and members to a result (and a predicate, above it).
template <class A> using collective = void (*)(A const*, u32 const*, u64*);
#define COLLECTIVE(name, A, constraint, ptx)                              \
  __global__ void name(A const* a, u32 const* m, u64* d) {                \
    unsigned const i = blockIdx.x * blockDim.x + threadIdx.x;             \
    u32 x = 0, y = 0;                                                     \
    if (m[i] != 0) {                                                      \
      asm volatile(ptx : "+r"(x), "+r"(y) : constraint(a[i]), "r"(m[i])); \
      d[i] = u64(y) << 32 | x;                                            \
    }                                                                     \
  }
/// `model` gets the values of a lane's members and its own, and the members' lanes.
template <class A, class Model>
void check_collective(collective<A> kernel, std::vector<A> const& a, Model model) {
  auto const m = members();
  u64 const untouched = 0x1234567812345678u;
  buffer<A> const da(a);
  buffer<u32> const dm(m);
  buffer<u64> const d(std::vector<u64>(a.size(), untouched));
  kernel<<<warps / 4, 128>>>(da.data, dm.data, d.data);
  if (!device_is_done()) return;
  auto const got = d.host();
  for (std::size_t i = 0, wrong = 0; i < a.size() && wrong < 3; ++i) {
    std::vector<A> theirs;
    for (u32 lane = 0; lane < 32; ++lane)
      if (m[i] >> lane & 1) theirs.push_back(a[i / 32 * 32 + lane]);
    std::vector<A> const warp(a.begin() + i / 32 * 32, a.begin() + i / 32 * 32 + 32);
    u64 const expected = m[i] == 0 ? untouched : model(warp, theirs, a[i], m[i]);
    if (got[i] == expected) continue;
    ++wrong;
    complain("lane " + std::to_string(i % 32) + ", members " + hex(m[i]) + ": got " + hex(got[i]) +
             ", expected " + hex(expected));
  }
}

#define VOTE(mode, ...)                                                                      \
  COLLECTIVE(vote_##mode, u32, "r",                                                          \
             "{.reg .pred p; setp.ne.u32 p, %2, 0; vote.sync." #mode                         \
             ".pred p, !p, %3; selp.u32 %0, 1, 0, p;}")                                      \
  instruction const test_##mode("vote_" #mode, [] {                                          \
    check_collective<u32>(vote_##mode, values(2), [](auto&, auto& theirs, u32, u32) -> u64 { \
      auto const no = [](u32 x) { return x == 0; };                                          \
      return __VA_ARGS__;                                                                    \
    });                                                                                      \
  });
VOTE(all, std::all_of(theirs.begin(), theirs.end(), no))
VOTE(any, std::any_of(theirs.begin(), theirs.end(), no))
VOTE(uni, std::all_of(theirs.begin(), theirs.end(), no) ||
              std::none_of(theirs.begin(), theirs.end(), no))

template <class A, class F> u32 lanes_where(std::vector<A> const& warp, u32 m, F f) {
  u32 r = 0;
  for (u32 lane = 0; lane < 32; ++lane)
    if ((m >> lane & 1) != 0 && f(warp[lane])) r |= 1u << lane;
  return r;
}
COLLECTIVE(ballot, u32, "r",
           "{.reg .pred p; setp.ne.u32 p, %2, 0; vote.sync.ballot.b32 %0, p, %3;}")
instruction const test_ballot("vote_ballot", [] {
  check_collective<u32>(ballot, values(2), [](auto& warp, auto&, u32, u32 m) -> u64 {
    return lanes_where(warp, m, [](u32 x) { return x != 0; });
  });
});

#define MATCH(bits, T, constraint)                                                            \
  COLLECTIVE(match_any_##bits, T, constraint, "match.any.sync.b" #bits " %0, %2, %3;")        \
  COLLECTIVE(match_all_##bits, T, constraint,                                                 \
             "{.reg .pred p; match.all.sync.b" #bits " %0|p, %2, %3; selp.u32 %1, 1, 0, p;}") \
  std::vector<T> agreeing_##bits() {                                                          \
    std::vector<T> v;                                                                         \
    u32 warp = 0;                                                                             \
    for (u32 const x : values(3))                                                             \
      v.push_back(T(warp++ / 32 % 2 == 0 ? x % 3 : 5) * T(0x100000001u));                     \
    return v;                                                                                 \
  }                                                                                           \
  instruction const test_any_##bits("match_any_b" #bits, [] {                                 \
    check_collective<T>(match_any_##bits, agreeing_##bits(),                                  \
                        [](auto& warp, auto&, T own, u32 m) -> u64 {                          \
                          return lanes_where(warp, m, [&](T x) { return x == own; });         \
                        });                                                                   \
  });                                                                                         \
  instruction const test_all_##bits("match_all_b" #bits, [] {                                 \
    check_collective<T>(                                                                      \
        match_all_##bits, agreeing_##bits(), [](auto&, auto& theirs, T own, u32 m) -> u64 {   \
          bool const all =                                                                    \
              std::all_of(theirs.begin(), theirs.end(), [&](T x) { return x == own; });       \
          return all ? u64(1) << 32 | m : 0;                                                  \
        });                                                                                   \
  });
MATCH(32, u32, "r")
MATCH(64, u64, "l")

#define REDUX(name, words, A, constraint, Sum, what)                              \
  COLLECTIVE(redux_##name, A, constraint, "redux.sync." words " %0, %2, %3;")     \
  instruction const test_redux_##name("redux_" #name, [] {                        \
    std::vector<A> v;                                                             \
    for (u32 const x : values(1000)) v.push_back(A(x));                           \
    check_collective<A>(redux_##name, v, [](auto&, auto& theirs, A, u32) -> u64 { \
      Sum r = theirs[0];                                                          \
      for (std::size_t i = 1; i < theirs.size(); ++i) {                           \
        A const x = theirs[i];                                                    \
        r = Sum(what);                                                            \
      }                                                                           \
      return u32(r);                                                              \
    });                                                                           \
  });
REDUX(add_u32, "add.u32", u32, "r", u32, r + x)
REDUX(add_s32, "add.s32", s32, "r", u32, r + u32(x))
REDUX(min_u32, "min.u32", u32, "r", u32, x < r ? x : r)
REDUX(max_u32, "max.u32", u32, "r", u32, x > r ? x : r)
REDUX(min_s32, "min.s32", s32, "r", s32, x < r ? x : r)
REDUX(max_s32, "max.s32", s32, "r", s32, x > r ? x : r)
REDUX(and, "and.b32", u32, "r", u32, r& x)
REDUX(or, "or.b32", u32, "r", u32, r | x)
REDUX(xor, "xor.b32", u32, "r", u32, r ^ x)

#define REDUX_REAL(name, words, max, nan, abs)                                                     \
  COLLECTIVE(redux_##name, f32, "f",                                                               \
             "{.reg .f32 t; redux.sync." words ".f32 t, %2, %3; mov.b32 %0, t;}")                  \
  instruction const test_redux_##name("redux_" #name, [] {                                         \
    std::vector<f32> v;                                                                            \
    for (u32 const x : values(1000)) v.push_back(x % 40 == 0 ? NAN : from_bits<f32>(x << 20 | x)); \
    check_collective<f32>(redux_##name, v, [](auto&, auto& theirs, f32, u32) -> u64 {              \
      f32 r = abs ? std::fabs(theirs[0]) : theirs[0];                                              \
      for (f32 const x : theirs) r = extreme(max, nan, r, abs ? std::fabs(x) : x);                 \
      return r != r ? 0x7fffffffu : bits_of(r);                                                    \
    });                                                                                            \
  });
REDUX_REAL(min_f32, "min", false, false, false)
REDUX_REAL(max_f32_nan, "max.NaN", true, true, false)
REDUX_REAL(max_f32_abs, "max.abs", true, false, true)

// One lane of each group is elected, and all of it are told which.
COLLECTIVE(elect, u32, "r", "{.reg .pred p; elect.sync %0|p, %3; selp.u32 %1, 1, 0, p;}")
instruction const test_elect("elect", [] {
  std::vector<u32> lanes(32 * warps);
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = u32(i % 32);
  check_collective<u32>(elect, lanes, [](auto&, auto& theirs, u32 own, u32) -> u64 {
    return u64(theirs[0] == own) << 32 | theirs[0];
  });
});

__global__ void active(u32* d) {
  unsigned const lane = threadIdx.x;
  u32 x = 0;
  if (lane % 3 == 1) asm volatile("activemask.b32 %0;" : "=r"(x));
  d[lane] = x;
}
instruction const test_active("activemask", [] {
  buffer<u32> const d(std::vector<u32>(32, 9));
  active<<<1, 32>>>(d.data);
  if (!device_is_done()) return;
  auto const got = d.host();
  for (u32 lane = 0; lane < 32; ++lane) {
    u32 outside = 0;
    for (u32 k = 0; k < 32; ++k) outside |= u32(k % 3 != 1) << k;
    bool const right =
        lane % 3 == 1 ? (got[lane] & outside) == 0 && (got[lane] >> lane & 1) != 0 : got[lane] == 0;
    if (!right) complain("lane " + std::to_string(lane) + ": got " + hex(got[lane]));
  }
});

}  // namespace instructions_warp_test
}  // namespace instruction_check
