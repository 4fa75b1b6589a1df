// Device memory is no input of the host backend.
// expect-error: host policy cannot follow
#include <shunt/core/concepts.hpp>

template <shunt::space S>
constexpr bool readable = shunt::input<shunt::view<float const, 2, S>, shunt::on_host, 2>;

static_assert(readable<shunt::space::host>);
#ifndef SHUNT_EXPECT_OK
static_assert(readable<shunt::space::device>, "the host policy cannot follow a device pointer");
#endif
