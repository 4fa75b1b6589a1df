/// Ids of 64 bits, which is what torch makes of integers, as the 32 that Shunt reads.
#include <cstdint>
#include <limits>
#include <string>

#include "array.hpp"
#include "bind.hpp"
#include "maybe.hpp"

namespace bindings {
namespace {

/// A new int32 array of the kind of `given`, int64 [T] or [T,K] in host memory with any strides. A
/// ValueError names the first id that int32 cannot hold.
nb::object narrow_ids(maybe given, char const* name) {
  array const ids(given, name, -1, {element::i64}, access::read, place::host);
  if (ids.rank() != 1 && ids.rank() != 2) {
    value_error(std::string(name) + " has " + std::to_string(ids.rank()) +
                " axes; it must have 1 or 2");
  }
  bool const matrix = ids.rank() == 2;
  offset_t const rows = ids.extent(0), columns = matrix ? ids.extent(1) : 1;
  offset_t const step = matrix ? ids.stride(1) : 0;
  array narrow = matrix
                     ? output(nb::none(), given, name, {rows, columns}, {element::i32}, place::host)
                     : output(nb::none(), given, name, {rows}, {element::i32}, place::host);
  auto const* const from = static_cast<std::int64_t const*>(ids.data());
  auto* to = static_cast<index_t*>(narrow.data());
  for (offset_t t = 0; t < rows; ++t) {
    for (offset_t k = 0; k < columns; ++k) {
      std::int64_t const id = from[t * ids.stride(0) + k * step];
      *to = static_cast<index_t>(id);
      if (*to++ == id) continue;
      value_error(std::string(name) + "[" + std::to_string(t) +
                  (matrix ? ", " + std::to_string(k) : "") + "] is " + std::to_string(id) +
                  "; it must be from " + std::to_string(std::numeric_limits<index_t>::min()) +
                  " to " + std::to_string(std::numeric_limits<index_t>::max()));
    }
  }
  return nb::borrow(narrow.object());
}

}  // namespace

void bind_ids(nb::module_& m) { m.def("narrow_ids", &narrow_ids); }

}  // namespace bindings
