// Variables and their initializers.
#include <bit>
#include <cstring>

#include "ptx/parser.hpp"

namespace softgpu::ptx {
namespace {

constexpr std::int64_t most_bytes = std::int64_t{1} << 40;

void store(std::vector<std::uint8_t>& bytes, std::int64_t offset, std::uint64_t value, int size) {
  auto const end = static_cast<std::size_t>(offset + size);
  if (bytes.size() < end) bytes.resize(end);
  std::memcpy(bytes.data() + offset, &value, static_cast<std::size_t>(size));
}

}  // namespace

variable parser::declaration(space where, bool is_extern) {
  variable v;
  v.space = where;
  v.is_extern = is_extern;
  v.line = now_.line;
  bool typed = false;
  int vector = 1;
  std::int64_t alignment = 0;
  while (now_.kind == token_kind::word && now_.text[0] == '.') {
    std::string_view const what = word("a type");
    if (what == ".align") {
      alignment = integer("an alignment");
      if (alignment < 1 || alignment > 4096 || !std::has_single_bit(std::uint64_t(alignment)))
        fail("an alignment must be a power of two up to 4096");
    } else if (what == ".v2" || what == ".v4") {
      vector = what[2] - '0';
    } else if (what == ".attribute") {
      expect('(', "after .attribute");
      while (!accept(')')) {
        v.is_managed = v.is_managed || now_.is(".managed");
        advance();
      }
    } else if (what == ".ptr") {
      if (now_.kind == token_kind::word && now_.text != ".align") advance();  // .global, …
    } else if (read_scalar(what.substr(1), v.type)) {
      typed = true;
    } else {
      fail("unsupported type or attribute " + std::string(what) + " in a declaration");
    }
  }
  if (!typed) fail("a declaration without a type");
  v.name = word("a variable's name");
  std::int64_t count = 1;
  while (accept('[')) {
    v.is_array = true;
    std::int64_t const extent = now_.is(']') ? 0 : integer("an extent");
    expect(']', "after an extent");
    if (extent < 0 || (count > 0 && extent > most_bytes / 32 / count))
      fail("an extent is too large");
    count *= extent;
  }
  v.bytes = count * v.type.bytes() * vector;
  v.alignment = static_cast<int>(alignment > 0 ? alignment : v.type.bytes() * vector);
  if (accept('=')) initializer(v);
  return v;
}

std::vector<variable> parser::declarations(space where, bool is_extern) {
  std::vector<variable> out{declaration(where, is_extern)};
  while (accept(',')) {  // further names of the same type
    variable next = out.front();
    next.name = word("a variable's name");
    next.initial.clear();
    next.relocations.clear();
    if (now_.is('[')) fail("arrays in a list of names are not supported");
    if (accept('=')) initializer(next);
    out.push_back(std::move(next));
  }
  expect(';', "after a declaration");
  return out;
}

void parser::initializer(variable& v) {
  v.initialized = true;
  std::int64_t offset = 0;
  initializer_element(v, offset);
  if (v.is_array && v.bytes == 0) v.bytes = offset;
  if (offset > v.bytes) fail("an initializer is longer than its variable");
}

void parser::initializer_element(variable& v, std::int64_t& offset) {
  int const size = v.type.bytes();
  if (accept('{')) {
    while (!accept('}')) {
      initializer_element(v, offset);
      if (!accept(',') && !now_.is('}')) fail("expected ',' or '}' in an initializer");
    }
    return;
  }
  if (now_.kind == token_kind::real32 || now_.kind == token_kind::real64) {
    std::uint64_t bits = now_.value;
    if (now_.kind == token_kind::real64 && size == 4)
      bits = std::bit_cast<std::uint32_t>(static_cast<float>(std::bit_cast<double>(bits)));
    if (now_.kind == token_kind::real32 && size == 8)
      bits = std::bit_cast<std::uint64_t>(
          static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits))));
    store(v.initial, offset, bits, size);
    advance();
  } else if (now_.kind == token_kind::integer && !peek().is('(')) {
    store(v.initial, offset, static_cast<std::uint64_t>(integer("a number")), size);
  } else if (now_.is('-')) {
    store(v.initial, offset, static_cast<std::uint64_t>(integer("a number")), size);
  } else {
    relocation r;
    r.offset = offset;
    r.size = size;
    if (now_.kind == token_kind::integer) {  // 0xFF00(symbol): that byte of the address
      r.shift = std::countr_zero(static_cast<std::uint64_t>(integer("a mask")));
      expect('(', "after a mask");
    } else if (now_.is("generic")) {
      r.generic = true;
      advance();
      expect('(', "after generic");
    }
    bool const enclosed = r.generic || peek().is(')') || r.shift > 0;
    r.symbol = word("a symbol");
    if (accept('+')) r.addend = integer("an offset");
    if (r.generic || (enclosed && now_.is(')'))) expect(')', "after a symbol");
    if (accept('+')) r.addend += integer("an offset");
    store(v.initial, offset, 0, size);
    v.relocations.push_back(r);
  }
  offset += size;
}

}  // namespace softgpu::ptx
