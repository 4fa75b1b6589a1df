// What a project that uses Shunt compiles: exits 0 where the numbers are right.
#include <array>
#include <cstdio>
#include <shunt/core/arena.hpp>
#include <shunt/core/version.hpp>
#include <shunt/core/view.hpp>
#include <vector>

int main() {
  std::vector<float> data(6);
  shunt::view<float, 2> grid(data.data(), {{2, 3}});
  grid(1, 2) = 7;
  bool const ok = data[5] == 7 && grid[1].extent(0) == 3;
  std::printf("shunt %d.%d.%d: %s\n", SHUNT_VERSION / 10000, SHUNT_VERSION / 100 % 100,
              SHUNT_VERSION % 100, ok ? "ok" : "wrong");
  return ok ? 0 : 1;
}
