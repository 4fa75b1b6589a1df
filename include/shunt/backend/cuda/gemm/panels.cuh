#pragma once
#include "shunt/backend/cuda/async_copy.cuh"
#include "shunt/backend/cuda/gemm/frame.cuh"

/// An operand of a tile in shared memory, as tensor cores take it: matrices of eight rows of 16 bytes,
/// each 128 bytes on end, four of them (64 bytes of terms) for every eight rows or columns. An access that
/// reads or writes eight of those rows at once has no bank conflict, without padding or swizzle. A
/// matrix's rows are the tile's rows (columns), or, where memory lies across (16-bit elements), its
/// terms. It is the layout of wgmma without swizzle, too.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int tensor_threads = 256;
inline constexpr int panel_line = 64;  ///< bytes of a row's terms in a step of the pipeline

/// Which word of a panel thread n brings: the terms from `term` on of a row, or (across) the rows from
/// `outer` on of a term. Neighboring threads have the rows of one matrix, and then the next matrix
/// along memory.
struct panel_word {
  int outer, term, place;
};
template <class T, int Outer> __device__ panel_word word_of(unsigned n, bool across) noexcept {
  constexpr unsigned each = 16 / sizeof(T), words = panel_line / 16;
  unsigned const row = n % 8, matrix = n / 8;
  unsigned const o = across ? matrix % (Outer / 8) : matrix / words;
  unsigned const t = across ? matrix / (Outer / 8) : matrix % words;
  return {static_cast<int>(o * 8 + (across ? 0 : row)),
          static_cast<int>(t * each + (across ? row : 0)),
          static_cast<int>((o * words + t) * 128 + row * 16)};
}

/// What bring_panel is told of a tile's operand and of the step.
struct panel_part {
  void const* const* line;
  int term, terms;  ///< the step's first, and how many there are
  int outer, outers, half;
};

/// Terms to a panel, of an operand all of whose words are aligned, and there as a whole or not at all.
template <class T, int Outer, bool Across>
__device__ void bring_words(panel_part const& part, char* panel) noexcept {
  constexpr int all = Outer * panel_line / 16, turns = (all + tensor_threads - 1) / tensor_threads;
  unsigned const n = opaque_thread_id();
  if (all < tensor_threads && n >= all) return;
  panel_word const first = word_of<T, Outer>(n, Across);
  bool const there =
      Across ? (first.outer & (part.half - 1)) < part.outers : first.term < part.terms;
  offset_t const at = Across ? part.outer + first.outer : part.term + first.term;
#pragma unroll
  for (unsigned i = 0; i < turns; ++i) {
    // A thread's next word is as far from its first one as the first thread's is.
    panel_word const ahead = word_of<T, Outer>(i * tensor_threads, Across);
    auto const* const p = static_cast<T const*>(
        part.line[Across ? first.term + ahead.term : first.outer + ahead.outer]);
    copy_word(panel + (first.place + ahead.place), p + at, there && p != nullptr);
  }
}

/// The same of any operand: words where memory has them so, else element by element, to the same
/// places.
template <class T, int Outer>
__device__ void bring_elements(gemm_operand const& from, panel_part const& part,
                               char* panel) noexcept {
  constexpr int each = 16 / static_cast<int>(sizeof(T));
  bool const across = sizeof(T) == 2 && !from.along_terms;
  bool const in_words = from.in_words && (sizeof(T) == 2 || from.along_terms);
  auto const element = [&](int o, int t) {
    auto const* const p = static_cast<T const*>(part.line[from.lines_outer ? o : t]);
    return p == nullptr ? p : p + from.step * (from.lines_outer ? part.term + t : part.outer + o);
  };
#pragma unroll 1
  for (unsigned n = opaque_thread_id(); n < Outer * panel_line / 16; n += tensor_threads) {
    auto const [o, t, place] = word_of<T, Outer>(n, across);
    int const rows = part.outers - (o & (part.half - 1)), terms = part.terms - t;
    int const count = across ? (terms > 0 ? rows : 0) : (rows > 0 ? terms : 0);
    T const* const word = element(o, t);
    if (in_words && count >= each && word != nullptr &&
        reinterpret_cast<std::uintptr_t>(word) % 16 == 0) {
      copy_word(panel + place, word, true);
      continue;
    }
#pragma unroll 1
    for (int i = 0; i < each; ++i) {
      T const* const p = i < count ? element(o + (across ? i : 0), t + (across ? 0 : i)) : nullptr;
      T* const to = reinterpret_cast<T*>(panel + place) + i;
      if constexpr (sizeof(T) == 4) {
        copy_float(to, p != nullptr ? p : from.data, p != nullptr);
      } else {
        *to = p != nullptr ? *p : T{};
      }
    }
  }
}

template <class T, int Outer>
__device__ void bring_panel(gemm_operand const& from, bool whole, panel_part const& part,
                            char* panel) noexcept {
  if (whole) {
    if (sizeof(T) == 4 || from.along_terms) {
      bring_words<T, Outer, false>(part, panel);
    } else {
      bring_words<T, Outer, true>(part, panel);
    }
  } else {
    bring_elements<T, Outer>(from, part, panel);
  }
}

/// Whether bring_words takes an operand of this tile: lines that begin at multiples of 16 bytes, and
/// of both extents that the words run along, multiples of their elements.
template <class T>
__device__ bool in_whole_words(void const* data, offset_t stride, offset_t extent) noexcept {
  constexpr int each = 16 / static_cast<int>(sizeof(T));
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && (stride | extent) % each == 0;
}
template <class T> __device__ bool left_in_words(gemm_job const& job) noexcept {
  bool const wgrad = job.kind == gemm_kind::wgrad;
  if (wgrad && sizeof(T) == 4) return false;
  offset_t const extent = job.kind == gemm_kind::forward ? job.k : job.n;
  return in_whole_words<T>(job.a.data, job.a.stride, extent);
}
template <class T> __device__ bool right_in_words(gemm_job const& job, offset_t expert) noexcept {
  if (job.kind != gemm_kind::forward && sizeof(T) == 4) return false;
  if (job.kind == gemm_kind::wgrad) { return in_whole_words<T>(job.b.data, job.b.stride, job.k); }
  if (job.w.packed || job.w.column_stride != 1) return false;
  return in_whole_words<T>(expert_of<T const>(job.w, expert), job.w.row_stride, job.k) &&
         (job.w.second == nullptr ||
          in_whole_words<T>(job.w.second[expert], job.w.row_stride, job.k));
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
