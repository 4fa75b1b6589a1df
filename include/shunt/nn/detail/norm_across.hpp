#pragma once
#include "shunt/across/sum.hpp"
#include "shunt/nn/optimizer.hpp"
#include "shunt/nn/rank_parameters.hpp"

/// The norm of a model's gradients, where experts are on several ranks: that of the whole model's flat buffer, in the
/// order of gradient_norm.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// Part of a piece of the flat buffer, whoever has it.
struct norm_fragment {
  offset_t piece, at, count;  // at: from the beginning of the piece
  int owner;                  // -1: all
  offset_t here;              // in the flat buffer of who has it
};

template <class F>
void for_each_fragment(model_config const& c, expert_placement const& p, int rank, F&& f) {
  for_each_run(c, p, rank, [&](rank_run const& run) {
    for (offset_t done = 0; done < run.count;) {
      offset_t const first = run.in_whole + done, at = first % norm_piece, left = run.count - done,
                     count = left < norm_piece - at ? left : norm_piece - at;
      f(norm_fragment{first / norm_piece, at, count, run.owner, run.here + done});
      done += count;
    }
  });
}

template <exchange X> struct model_norm {
  static constexpr int all_have = -1, several = -2;  // owners of a piece
  static constexpr offset_t at_once = 16;            // pieces of several ranks that are gathered

  among_ranks<X> const& among;
  model_config const& c;
  offset_t pieces;
  int* owner;                 // [pieces]
  float const** contiguous;   // [pieces] null: nowhere here
  float *partial, *gathered;  // [pieces] [R,pieces]
  float *mine, *parts;        // [at_once,piece] of this rank and [R] of all

  [[nodiscard]] static model_norm carve(arena<>& from, among_ranks<X> const& among,
                                        model_config const& c) noexcept {
    offset_t const pieces = pieces_of(parameter_count(c), norm_piece),
                   ranks = among.transport.ranks();
    return {among,
            c,
            pieces,
            from.take<int>(pieces),
            from.take<float const*>(pieces),
            from.take<float>(pieces),
            from.take<float>(pieces * ranks),
            from.take<float>(at_once * norm_piece),
            from.take<float>(at_once * norm_piece * ranks)};
  }

  [[nodiscard]] status of(on_host const& on, view<float const, 1> gradient, float& norm) noexcept {
    find_owners();
    own_pieces(on, gradient.data());
    status done = pieces_of_one();
    offset_t const count = parameter_count(c);
    for (offset_t first = 0; done.ok() && first < pieces;) {
      offset_t last = first;
      for (offset_t found = 0; last < pieces && found < at_once; ++last) {
        found += owner[last] == several ? 1 : 0;
      }
      done = pieces_of_several(on, gradient.data(), first, last, count);
      first = last;
    }
    if (done.ok()) norm = optimizer_backend<on_host>::norm_of(on, partial, pieces);
    return done;
  }

 private:
  [[nodiscard]] int rank() const noexcept { return among.transport.rank(); }
  [[nodiscard]] int ranks() const noexcept { return among.transport.ranks(); }
  template <class F> void fragments(F&& f) const {
    for_each_fragment(c, among.placement, rank(), f);
  }
  [[nodiscard]] bool has(norm_fragment const& f) const noexcept {
    return f.owner < 0 || f.owner == rank();
  }

  void find_owners() noexcept {
    for (offset_t i = 0; i < pieces; ++i) owner[i] = all_have;
    fragments([&](norm_fragment const& f) {
      int& is = owner[f.piece];
      if (f.owner >= 0) is = is == all_have || is == f.owner ? f.owner : several;
    });
  }
  /// Sums of the pieces that this rank has whole. A sum of squares is never below 0: that marks the others.
  void own_pieces(on_host const& on, float const* gradient) noexcept {
    using backend = optimizer_backend<on_host>;
    for (offset_t i = 0; i < pieces; ++i) {
      contiguous[i] = nullptr;
      partial[i] = -1.0f;
    }
    offset_t const count = parameter_count(c);
    auto const length = [&](offset_t piece) {
      offset_t const left = count - piece * norm_piece;
      return left < norm_piece ? left : norm_piece;
    };
    fragments([&](norm_fragment const& f) {
      if (owner[f.piece] != all_have && owner[f.piece] != rank()) return;
      if (f.count == length(f.piece)) {
        contiguous[f.piece] = gradient + f.here;
        return;
      }
      for (offset_t i = 0; i < f.count; ++i) mine[f.at + i] = gradient[f.here + i];
      if (f.at + f.count == length(f.piece)) {
        partial[f.piece] = backend::squares(on, mine, length(f.piece));
      }
    });
    host::parallel_ranges(on, pieces, 16, [&](offset_t first, offset_t last, int) {
      for (offset_t i = first; i < last; ++i) {
        if (contiguous[i] != nullptr) partial[i] = backend::squares(on, contiguous[i], length(i));
      }
    });
  }
  [[nodiscard]] status pieces_of_one() noexcept {
    status const met = shunt::detail::met(
        "gradient_norm", among,
        among.transport.all_gather(partial, gathered,
                                   static_cast<std::size_t>(pieces) * sizeof(float)));
    for (offset_t i = 0; i < pieces && met.ok(); ++i) {
      if (owner[i] >= 0) partial[i] = gathered[owner[i] * pieces + i];
    }
    return met;
  }
  /// Of those among pieces [first, last) that several ranks have parts of, all get all parts.
  [[nodiscard]] status pieces_of_several(on_host const& on, float const* gradient, offset_t first,
                                         offset_t last, offset_t count) noexcept {
    constexpr offset_t room = at_once * norm_piece;
    offset_t found = 0, before = first;
    // Fragments come in ascending order: each gets the place of its piece among those of several ranks.
    auto const each = [&](auto const& f_of) {
      found = 0;
      before = -1;
      fragments([&](norm_fragment const& f) {
        if (f.piece < first || f.piece >= last || owner[f.piece] != several) return;
        if (f.piece != before) ++found;
        before = f.piece;
        f_of(f, (found - 1) * norm_piece + f.at);
      });
    };
    for (offset_t i = 0; i < room; ++i) mine[i] = 0.0f;
    each([&](norm_fragment const& f, offset_t to) {
      for (offset_t i = 0; has(f) && i < f.count; ++i) mine[to + i] = gradient[f.here + i];
    });
    if (found == 0) return {};
    status const met = shunt::detail::met(
        "gradient_norm", among,
        among.transport.all_gather(mine, parts, static_cast<std::size_t>(room) * sizeof(float)));
    if (!met.ok()) return met;
    each([&](norm_fragment const& f, offset_t to) {
      float const* const from = parts + (f.owner < 0 ? rank() : f.owner) * room;
      for (offset_t i = 0; i < f.count; ++i) mine[to + i] = from[to + i];
      offset_t const left = count - f.piece * norm_piece,
                     length = left < norm_piece ? left : norm_piece;
      if (f.at + f.count == length) {
        partial[f.piece] = optimizer_backend<on_host>::squares(on, mine + (to - f.at), length);
      }
    });
    return met;
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
