#pragma once
#include "shunt/backend/cuda/async_copy.cuh"
#include "shunt/backend/cuda/gemm_frame.cuh"

/// An operand of a tile in shared memory, as tensor cores take it: matrices of eight rows of 16 bytes,
/// each 128 bytes on end, four of them (64 bytes of terms) for every eight rows or columns. Whatever
/// reads or writes eight of those rows at once meets every bank once, without padding or exchange. A
/// matrix's rows are the tile's rows (columns), or, where memory lies across (16-bit elements), its
/// terms. It is the layout of wgmma without swizzle, too.
namespace shunt::cuda {
inline namespace SHUNT_HOST_ABI {

inline constexpr int tensor_threads = 256;
inline constexpr int panel_line = 64;  ///< bytes of a row's terms in a step of the pipeline

/// Brings the terms [term, term + terms) to a panel. In words of 16 bytes where memory has them so,
/// else element by element, to the same places.
template <class T, int Outer>
__device__ void bring_panel(gemm_operand const& from, void const* const* line, int half, int term,
                            int terms, int outer, int outers, char* panel) noexcept {
  constexpr int word = 16 / static_cast<int>(sizeof(T)), words = panel_line / 16;
  bool const natural = sizeof(T) == 2 || from.along_terms;
  bool const across = sizeof(T) == 2 && !from.along_terms;
#pragma unroll 2
  for (int n = static_cast<int>(threadIdx.x); n < Outer * words; n += tensor_threads) {
    // Neighbouring threads have the rows of one matrix, then the next matrix along memory.
    int const r = n % 8, matrix = n / 8;
    int const o8 = across ? matrix % (Outer / 8) : matrix / words;
    int const t8 = across ? matrix / (Outer / 8) : matrix % words;
    int const o = o8 * 8 + (across ? 0 : r), t = t8 * word + (across ? r : 0);
    char* const place = panel + (o8 * words + t8) * 128 + r * 16;
    int const c = outers - (o & (half - 1));  // columns from here on
    int const count = across ? (t < terms ? min(c, word) : 0) : (c > 0 ? min(terms - t, word) : 0);
    auto const element = [&](int i, int j) {
      auto const* const p = static_cast<T const*>(line[from.lines_outer ? i : j]);
      return p == nullptr ? p : p + from.step * (from.lines_outer ? term + j : outer + i);
    };
    if (natural && from.in_words) {
      T const* const p = element(o, t);
      if (p == nullptr || count <= 0) {
        *reinterpret_cast<uint4*>(place) = make_uint4(0, 0, 0, 0);
        continue;
      }
      if (count == word && reinterpret_cast<std::uintptr_t>(p) % 16 == 0) {
        copy_word(place, p);
        continue;
      }
    }
#pragma unroll 1
    for (int i = 0; i < word; ++i) {
      T const* const p = i < count ? element(across ? o + i : o, across ? t : t + i) : nullptr;
      T* const to = reinterpret_cast<T*>(place) + i;
      if constexpr (sizeof(T) == 4) {
        copy_float(to, p != nullptr ? p : from.data, p != nullptr);
      } else {
        *to = p != nullptr ? *p : T{};
      }
    }
  }
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::cuda
