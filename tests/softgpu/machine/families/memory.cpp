// Loads and stores: PTX manual, "Data Movement and Conversion Instructions".
#include <bit>
#include <cstring>

#include "checks/faults.hpp"
#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"
#include "machine/lane_tools.hpp"

namespace softgpu {
namespace {

template <class T> T volatile_read(std::byte const* from) {
  if constexpr (sizeof(T) <= 8)
    return __atomic_load_n(reinterpret_cast<T const*>(from), __ATOMIC_ACQUIRE);
}

/// One value of an element's width, read in one piece: other threads may write it meanwhile.
std::uint64_t read_element(std::byte const* from, unsigned bytes) {
  switch (bytes) {
    case 1: return volatile_read<std::uint8_t>(from);
    case 2: return volatile_read<std::uint16_t>(from);
    case 4: return volatile_read<std::uint32_t>(from);
    default: return volatile_read<std::uint64_t>(from);
  }
}

void write_element(std::byte* to, std::uint64_t v, unsigned bytes) {
  switch (bytes) {
    case 1:
      return __atomic_store_n(reinterpret_cast<std::uint8_t*>(to), std::uint8_t(v),
                              __ATOMIC_RELEASE);
    case 2:
      return __atomic_store_n(reinterpret_cast<std::uint16_t*>(to), std::uint16_t(v),
                              __ATOMIC_RELEASE);
    case 4:
      return __atomic_store_n(reinterpret_cast<std::uint32_t*>(to), std::uint32_t(v),
                              __ATOMIC_RELEASE);
    default: return __atomic_store_n(reinterpret_cast<std::uint64_t*>(to), v, __ATOMIC_RELEASE);
  }
}

std::uint64_t extended(std::uint64_t v, memory_traits const& t) {
  if (!t.sign) return v;
  int const shift = 64 - static_cast<int>(t.element_bytes) * 8;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(v << shift) >> shift);
}

std::uint64_t read_register(std::byte const* row, unsigned bits, int lane) {
  std::uint64_t v = 0;
  std::memcpy(&v, row + static_cast<unsigned>(lane) * (bits / 8), bits / 8 > 8 ? 8 : bits / 8);
  return v;
}

/// 16 bytes in one piece, as a device moves an aligned vector: readers never see half of it.
using sixteen = long long __attribute__((vector_size(16), aligned(16), may_alias));

void load(warp& w, op const& o) {
  memory_traits const t = unpack(o.aux);
  access a(w, o, t.space, access_kind::load, t.element_bytes * t.elements);
  a.strong = t.strong;
  fill_addresses(a);
  lane_mask const good = admit(a);
  ref const* const to = w.here.code->extras.data() + o.extra;
  unsigned const bytes = t.element_bytes, store = t.register_bits / 8;
  if (a.contiguous && t.elements == 1 && bytes == store) {
    std::memcpy(w.row<std::byte>(to[0]), a.host[0], std::size_t{bytes} * lanes_per_warp);
    return;
  }
  if (good == w.mask && bytes == 4 && store == 4) {  // the common widths
    if (t.elements == 1) return loops.gather32(w.row<std::uint32_t>(to[0]), a.host, good);
    for (int i = 0; i < lanes_per_warp; ++i) {
      if ((good >> i & 1) == 0) continue;
      std::uint32_t v[4];
      if (t.elements == 2) {
        std::uint64_t const both = read_element(a.host[i], 8);
        std::memcpy(v, &both, 8);
      } else {
        *reinterpret_cast<sixteen*>(v) = *reinterpret_cast<sixteen const volatile*>(a.host[i]);
      }
      for (unsigned k = 0; k < t.elements; ++k) w.row<std::uint32_t>(to[k])[i] = v[k];
    }
    return;
  }
  if (good == w.mask && bytes == 8 && store == 8 && t.elements == 1)
    return loops.gather64(w.row<std::uint64_t>(to[0]), a.host, good);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    alignas(32) std::byte piece[32] = {};
    if (good >> i & 1) {
      if (a.bytes % 16 == 0) {
        for (unsigned k = 0; k < a.bytes; k += 16)
          *reinterpret_cast<sixteen*>(piece + k) =
              *reinterpret_cast<sixteen const volatile*>(a.host[i] + k);
      } else if (a.bytes <= 8) {
        std::uint64_t const v = read_element(a.host[i], a.bytes);
        std::memcpy(piece, &v, 8);
      } else {
        std::memcpy(piece, a.host[i], a.bytes);
      }
    }
    for (unsigned k = 0; k < t.elements; ++k) {
      std::byte* const row = w.row<std::byte>(to[k]);
      std::uint64_t v[2] = {};
      std::memcpy(v, piece + k * bytes, bytes);
      if (bytes < 8) v[0] = extended(v[0], t);
      std::memcpy(row + static_cast<unsigned>(i) * store, v, store);
    }
  }
}

/// A kernel's parameter: the same for all lanes, always there.
void load_parameter(warp& w, op const& o) {
  memory_traits const t = unpack(o.aux);
  ref const* const to = w.here.code->extras.data() + o.extra;
  unsigned const store = t.register_bits / 8;
  std::byte const* from =
      map::host(w.block->launch->parameters + static_cast<std::uint64_t>(o.value));
  for (unsigned k = 0; k < t.elements; ++k) {
    std::uint64_t v[2] = {};
    std::memcpy(v, from + k * t.element_bytes, t.element_bytes);
    if (t.element_bytes < 8) v[0] = extended(v[0], t);
    std::byte* const row = w.row<std::byte>(to[k]);
    for (int i = 0; i < lanes_per_warp; ++i)
      if (w.mask >> i & 1) std::memcpy(row + static_cast<unsigned>(i) * store, v, store);
  }
}

/// Lanes that write different values to one address of shared memory: which of them lasts is
/// nobody's promise. (The same value is a common and good thing to write.)
void compare_values(access& a, lane_mask good, ref const* rows, memory_traits const& t) {
  unsigned const width = t.register_bits / 8;
  auto const same = [&](int i, int j) {
    for (unsigned k = 0; k < t.elements; ++k) {
      std::byte const* const row = a.w.row<std::byte>(rows[k]);
      if (std::memcmp(row + unsigned(i) * width, row + unsigned(j) * width, t.element_bytes) != 0)
        return false;
    }
    return true;
  };
  for (int j = 1; j < lanes_per_warp; ++j)
    for (int i = 0; i < j; ++i)
      if ((good >> i & 1) != 0 && (good >> j & 1) != 0 && a.address[i] == a.address[j] &&
          !same(i, j))
        return raise_fault(a.w, a.o, lane_mask{1} << j, fault::shared_race,
                           "lanes " + std::to_string(i) + " and " + std::to_string(j) +
                               " write different values at once: shared memory at " +
                               std::to_string(a.address[i]));
}

void store(warp& w, op const& o) {
  memory_traits const t = unpack(o.aux);
  access a(w, o, t.space, access_kind::store, t.element_bytes * t.elements);
  a.strong = t.strong;
  fill_addresses(a);
  lane_mask const good = admit(a);
  ref const* const from = w.here.code->extras.data() + o.extra;
  if (a.together && !t.strong && a.space != ptx::space::global) compare_values(a, good, from, t);
  unsigned const bytes = t.element_bytes, width = t.register_bits / 8;
  if (a.contiguous && t.elements == 1 && bytes == width) {
    std::memcpy(a.host[0], w.row<std::byte>(from[0]), std::size_t{bytes} * lanes_per_warp);
    return;
  }
  if (t.elements == 1 && bytes == 4 && width == 4)
    return loops.scatter32(a.host, w.row<std::uint32_t>(from[0]), good);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((good >> i & 1) == 0) continue;
    alignas(32) std::byte piece[32];
    for (unsigned k = 0; k < t.elements; ++k)
      std::memcpy(piece + k * bytes, w.row<std::byte>(from[k]) + static_cast<unsigned>(i) * width,
                  bytes);
    if (a.bytes % 16 == 0) {
      for (unsigned k = 0; k < a.bytes; k += 16)
        *reinterpret_cast<sixteen volatile*>(a.host[i] + k) =
            *reinterpret_cast<sixteen const*>(piece + k);
    } else if (a.bytes <= 8) {
      write_element(a.host[i], read_register(piece, a.bytes * 8, 0), a.bytes);
    } else {
      std::memcpy(a.host[i], piece, a.bytes);
    }
  }
}

/// The rows of a value operand (a register, a number or a vector of them) and their width.
std::vector<ref> value_rows(builder& b, ptx::operand const& value, memory_traits& t, bool is_load,
                            ptx::scalar type) {
  std::vector<ptx::operand const*> elements;
  if (value.kind == ptx::operand_kind::vector)
    for (ptx::operand const& e : value.parts) elements.push_back(&e);
  else
    elements.push_back(&value);
  if (elements.size() != t.elements) b.fail("the vector has the wrong number of elements");
  t.register_bits = 0;
  for (ptx::operand const* e : elements) {
    if (e->kind != ptx::operand_kind::reg) continue;
    int bits = 0;
    b.any_row(*e, bits);
    if (t.register_bits != 0 && unsigned(bits) != t.register_bits)
      b.fail("a vector's registers differ in width");
    t.register_bits = static_cast<unsigned>(bits);
  }
  if (t.register_bits == 0)
    t.register_bits = type.bits < 16 ? 16 : static_cast<unsigned>(type.bits);
  if (t.register_bits < t.element_bytes * 8) b.fail("a register is narrower than its type");
  std::vector<ref> rows;
  for (ptx::operand const* e : elements) {
    ptx::scalar const wide{type.kind, static_cast<int>(t.register_bits)};
    rows.push_back(is_load ? b.output(*e, wide) : b.input(*e, wide));
  }
  return rows;
}

void build_access(builder& b, bool is_load) {
  memory_traits t;
  ptx::scalar const type = b.type();
  ptx::space const named = space_of(b);
  std::string_view const vec = b.one_of({"v2", "v4", "v8"});
  t.space = checked_space(named, b.function().is_entry);
  t.strong = !b.one_of({"relaxed", "acquire", "release", "volatile", "mmio"}).empty();
  t.element_bytes = static_cast<unsigned>(type.bytes());
  t.elements = vec.empty() ? 1 : static_cast<unsigned>(vec[1] - '0');
  t.sign = type.kind == 's';
  std::vector<ref> const rows = value_rows(b, b.operand(is_load ? 0 : 1), t, is_load, type);
  op address;
  b.address(address, b.operand(is_load ? 1 : 0), named);
  auto const mode = static_cast<addressing>(address.flags);
  if (mode == addressing::parameter && !is_load) b.fail("a kernel's parameters cannot be written");
  op& o = b.emit(!is_load ? &store : mode == addressing::parameter ? &load_parameter : &load);
  o.a = address.a, o.value = address.value, o.flags = address.flags;
  if (mode == addressing::frame) t.space = ptx::space::local;
  o.aux = pack(t);
  for (ref const r : rows) b.extra(o, r);
}
void build_load(builder& b) { build_access(b, true); }
void build_store(builder& b) { build_access(b, false); }

#define SOFTGPU_SPACES \
  "{.global|shared|shared::cta|shared::cluster|local|const|param|param::entry|param::func}"
#define SOFTGPU_HINTS                                                                          \
  "{.ca|cg|cs|lu|cv|wb|wt}{.nc}"                                                               \
  "{.L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate}"     \
  "{.L2::evict_normal|L2::evict_first|L2::evict_last}{.L2::cache_hint}{.L2::64B|L2::128B|L2::" \
  "256B}"
#define SOFTGPU_TYPES ".b8|b16|b32|b64|b128|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64"

constexpr form rows[] = {
    {"ld{.mmio}{.weak|relaxed|acquire|volatile}{.mmio}{.cta|cluster|gpu|"
     "sys}" SOFTGPU_SPACES SOFTGPU_HINTS "{.v2|v4|v8}" SOFTGPU_TYPES " d, [a]{, p}",
     kind::memory, build_load},
    {"ldu{.global}{.v2|v4}" SOFTGPU_TYPES " d, [a]", kind::memory, build_load},
    {"st{.mmio}{.weak|relaxed|release|volatile}{.mmio}{.cta|cluster|gpu|"
     "sys}" SOFTGPU_SPACES SOFTGPU_HINTS "{.v2|v4|v8}" SOFTGPU_TYPES " [a], b{, p}",
     kind::memory, build_store},
};

}  // namespace

std::span<form const> memory_family() { return rows; }

}  // namespace softgpu
