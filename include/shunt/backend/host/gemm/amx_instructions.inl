// No include guard: the tile instructions of AMX, for processors of isa::amx. In assembly: the compiler then knows no
// tile, keeps nothing in one, and needs no option. All products take one shape: sums of up to 16 rows by 16
// floats, a left operand of as many rows by 16 pairs of bf16, a right operand of 16 pairs by 16 columns.
inline constexpr std::int64_t amx_rows = 16;    ///< of a tile, at most
inline constexpr std::int64_t amx_pairs = 16;   ///< of k in a step
inline constexpr std::int64_t amx_row = 64;     ///< bytes of a tile's row
inline constexpr std::int64_t amx_tile = 1024;  ///< and of all its rows

/// What ldtilecfg reads.
struct alignas(64) amx_shapes {
  unsigned char palette = 1, first_row = 0, unused[14] = {};
  unsigned short row_bytes[16] = {};
  unsigned char rows[16] = {};
};

/// Tiles 0 to 5 get `rows` rows (sums 0 to 3, left operands 4 and 5), 6 and 7, the right operands, 16. Functions of their
/// own, as amx_sums: tests/two_units looks for tiles elsewhere.
__attribute__((noinline)) inline void amx_configure(std::int64_t rows) noexcept {
  amx_shapes shapes;
  for (int t = 0; t < 8; ++t) {
    shapes.row_bytes[t] = amx_row;
    shapes.rows[t] = static_cast<unsigned char>(t < 6 ? rows : amx_rows);
  }
  __asm__ __volatile__("ldtilecfg %0" : : "m"(shapes) : "memory");
}
/// No tile is in use from here on: a switch of threads, and the user's code, find none.
__attribute__((noinline)) inline void amx_release() noexcept {
  __asm__ __volatile__("tilerelease" : : : "memory");
}

template <int Tile> SHUNT_INLINE void amx_zero() noexcept {
  __asm__ __volatile__("tilezero {%%tmm%c0|tmm%c0}" : : "i"(Tile) : "memory");
}
/// Rows that lie `stride` bytes apart.
template <int Tile> SHUNT_INLINE void amx_load(void const* from, std::int64_t stride) noexcept {
  __asm__ __volatile__("tileloadd {(%0,%1,1), %%tmm%c2|tmm%c2, [%0+%1*1]}"
                       :
                       : "r"(from), "r"(stride), "i"(Tile)
                       : "memory");
}
template <int Tile> SHUNT_INLINE void amx_store(void* to, std::int64_t stride) noexcept {
  __asm__ __volatile__("tilestored {%%tmm%c2, (%0,%1,1)|[%0+%1*1], tmm%c2}"
                       :
                       : "r"(to), "r"(stride), "i"(Tile)
                       : "memory");
}
/// What tiles hold: see amx_dots.
enum class amx_terms { bf16, int8 };
/// To each sum the dot product of a row of the left tile with a column of the right one: docs/numerics.md.
/// int8: of 64 neighboring numbers, the left ones signed, the right ones not.
template <amx_terms Terms, int Sums, int Left, int Right> SHUNT_INLINE void amx_dots() noexcept {
  if constexpr (Terms == amx_terms::bf16) {
    __asm__ __volatile__("tdpbf16ps {%%tmm%c2, %%tmm%c1, %%tmm%c0|tmm%c0, tmm%c1, tmm%c2}"
                         :
                         : "i"(Sums), "i"(Left), "i"(Right)
                         : "memory");
  } else {
    __asm__ __volatile__("tdpbsud {%%tmm%c2, %%tmm%c1, %%tmm%c0|tmm%c0, tmm%c1, tmm%c2}"
                         :
                         : "i"(Sums), "i"(Left), "i"(Right)
                         : "memory");
  }
}
