#pragma once
#include "shunt/across/device_exchange.hpp"
#include "shunt/backend/cuda/across_shares.cuh"
#include "shunt/backend/cuda/dispatch.cuh"
#include "shunt/route/routing.hpp"

namespace shunt::detail {

template <> struct across_backend<on_cuda> {
  static constexpr space S = space::device;
  template <class T, int Rank> using memory = view<T, Rank, S>;
  using scratch = across_plan_scratch<on_cuda>;

  /// What kind of products this rank runs: tensor cores have an order of their own (contract 2).
  template <class T> [[nodiscard]] static int arithmetic(on_cuda const& on) noexcept {
    bool const half = !std::same_as<T, float>;
    switch (on.products) {
      case arithmetic::best: return half ? 3 : 0;
      case arithmetic::tf32: return half ? 3 : 2;
      default: return 0;
    }
  }
  /// What the transport needs. `sizes`: those of the layer.
  template <exchange X, class Sizes>
  [[nodiscard]] static status check(char const* who, on_cuda const& on, among_ranks<X> const& among,
                                    Sizes const& sizes) noexcept {
    if constexpr (device_exchange<X> || peer_exchange<X>) {
      if (among.transport.stream() == on.stream) return room(who, among, sizes);
      return status::fail(error::bad_argument,
                          "%s.on.stream: it is not the transport's stream; it must be the same",
                          who);
    } else {
      return status::fail(error::unsupported,
                          "%s.among.transport: it moves host memory; on a device it must be a "
                          "device_exchange or a peer_exchange, or have one rank",
                          who);
    }
  }

  /// Counts this rank's slots, and enqueues the gather of all ranks' messages. Does not wait.
  template <exchange X, int N>
  [[nodiscard]] static status announce(char const* who, on_cuda const& on,
                                       among_ranks<X> const& among, across_sizes const& n,
                                       memory<index_t const, 2> expert,
                                       memory<std::uint8_t const, 1> valid, scratch const& s,
                                       status own, rank_header header,
                                       agreed_number const (&list)[N]) noexcept {
    memory<index_t, 1> const to = s.tables.counted;
    if (own.ok()) own = clear(on, to);
    if (own.ok()) {
      own = cuda::launch_threads(
          on, who, n.tokens, cuda::count_ids, expert, valid,
          cuda::id_counts{n.ids(), n.levels(), to.data(), to.data() + n.counts()});
    }
    if constexpr (peer_exchange<X>) {
      header.tokens = n.tokens;
      return agree_by_host(who, among, s.messages, own, header, list);
    } else {
      return say(who, on, among, own, header, list, own.ok() ? to.data() : nullptr, n.counts());
    }
  }
  template <exchange X, int N>
  [[nodiscard]] static status announce(char const* who, on_cuda const& on,
                                       among_ranks<X> const& among, rank_messages const& m,
                                       status const& own, agreed_number const (&list)[N]) noexcept {
    if constexpr (peer_exchange<X>) {
      return agree_by_host(who, among, m, own, rank_header{}, list);
    } else {
      return say(who, on, among, own, rank_header{}, list, nullptr, 0);
    }
  }
  /// Waits for the messages, and concludes as every rank does.
  template <exchange X, int N>
  [[nodiscard]] static status conclude(char const* who, on_cuda const& on,
                                       among_ranks<X> const& among, scratch const& s,
                                       status const& own, agreed_number const (&list)[N]) noexcept {
    rank_messages const& m = s.messages;
    status const met = conclude(who, on, among, m, own, list);
    if (!met.ok() || m.in_tail() == 0) return met;
    if constexpr (device_exchange<X>) {
      auto const bytes = static_cast<std::size_t>(m.in_tail()) * sizeof(index_t);
      status done = gather(who, among, s.tables.counted.data() + rank_messages::first,
                           s.tables.tail.data(), static_cast<offset_t>(bytes));
      if (done.ok()) done = named(who, among.transport.take_messages(nullptr));
      if (!done.ok()) return done;
      cudaError_t e =
          cudaMemcpyAsync(m.tail, s.tables.tail.data(), bytes * static_cast<std::size_t>(m.ranks),
                          cudaMemcpyDeviceToHost, on.stream);
      if (e == cudaSuccess) e = cudaStreamSynchronize(on.stream);
      return enqueued(who, e);
    }
    return met;
  }
  template <exchange X, int N>
  [[nodiscard]] static status conclude(char const* who, on_cuda const&, among_ranks<X> const& among,
                                       rank_messages const& m, status const& own,
                                       agreed_number const (&list)[N]) noexcept {
    if constexpr (device_exchange<X>) {
      status const met = named(who, among.transport.take_messages(m.head));
      if (!met.ok()) return met;
      if (m.head == nullptr) {
        return status::fail(own.code(), "rank %d: %s", among.transport.rank(), own.message());
      }
    }
    return detail::conclude(who, m, list);
  }

  /// Both plans. The host makes numbers of experts and ranks, the device what there is of tokens and rows.
  template <exchange X>
  [[nodiscard]] static status plan(char const* who, on_cuda const& on, among_ranks<X> const& among,
                                   across_sizes const& n, memory<index_t const, 2> expert,
                                   memory<std::uint8_t const, 1> valid, scratch const& s,
                                   basic_across_plan<S> const& to) noexcept {
    if constexpr (peer_exchange<X>) {
      if (status bad = plan_by_device(who, on, among, n, s, to); !bad.ok()) return bad;
    } else {
      if (status bad = plan_by_host(who, on, among, n, s, to); !bad.ok()) return bad;
    }
    if (status bad = plan_received(who, on, n, s.tables, to); !bad.ok()) return bad;
    across_tables<on_cuda> const& t = s.tables;
    index_t const* const place = peer_exchange<X>
                                     ? t.placed.data() + among.transport.rank() * n.experts
                                     : t.device.data() + t.at_place;
    return plan_sent(who, on, place, n, expert, valid, s, to);
  }
  template <class T>
  [[nodiscard]] static status in_order_of_arrival(on_cuda const& on, memory<T const, 2> rows,
                                                  dispatch_plan<S> const& received,
                                                  memory<T, 2> arrived) noexcept {
    auto const as = [&](auto word) {
      using W = decltype(word);
      return cuda::launch_warps(on, "moe_layer_across", arrived.extent(0), cuda::rows_by_arrival<W>,
                                cuda::as_words<W const>(rows), received.slot_row,
                                cuda::as_words<W>(arrived));
    };
    switch (cuda::row_width()(rows)(arrived).bytes()) {
      case 16: return as(uint4{});
      case 8:
      case 4: return as(std::uint32_t{});
      default: return as(std::uint16_t{});
    }
  }

  [[nodiscard]] static status load(on_cuda const& on, across_sizes const&, scratch const& s,
                                   routing<S> const& before, memory<index_t, 1> counts,
                                   memory<index_t, 1> tokens) noexcept {
    across_tables<on_cuda> const& t = s.tables;
    index_t const* const all = t.device.data();
    status const done =
        cuda::launch_threads(on, "moe_layer_across", counts.extent(0), cuda::add_before,
                             all + t.at_wanted, before.counts, counts);
    if (!done.ok()) return done;
    return cuda::launch_threads(on, "moe_layer_across", 1, cuda::add_before, all + t.at_tokens,
                                before.tokens, tokens);
  }
  template <exchange X>
  [[nodiscard]] static status report(on_cuda const& on, among_ranks<X> const&, across_sizes const&,
                                     scratch const& s, basic_across_plan<S> const& plan,
                                     plan_report<S> const& to) noexcept {
    if (!to.wanted && !to.kept && !to.totals) return {};
    return cuda::launch_threads(on, "moe_layer_across", plan.here.offset.extent(0),
                                cuda::write_report, s.tables.device.data() + s.tables.at_here,
                                plan.here.offset, s.totals, to);
  }

  template <class T>
  [[nodiscard]] static status copy(on_cuda const& on, memory<T, 1> from, memory<T, 1> to) noexcept {
    return enqueued("moe_layer_across", cudaMemcpyAsync(to.data(), from.data(), bytes(to),
                                                        cudaMemcpyDeviceToDevice, on.stream));
  }
  template <class T>
  [[nodiscard]] static status clear(on_cuda const& on, memory<T, 1> to) noexcept {
    return enqueued("moe_layer_across", cudaMemsetAsync(to.data(), 0, bytes(to), on.stream));
  }
  /// sum[0] = the parts, one after the other.
  [[nodiscard]] static status add_up(on_cuda const& on, memory<float, 1> parts,
                                     memory<float, 1> sum) noexcept {
    return cuda::launch_threads(on, "moe_layer_across", 1, cuda::add_in_order, parts, sum);
  }

 private:
  template <class T> static std::size_t bytes(memory<T, 1> v) noexcept {
    return static_cast<std::size_t>(v.extent(0)) * sizeof(T);
  }
  [[nodiscard]] static status named(char const* who, status const& done) noexcept {
    return done.ok() ? done : status::fail(done.code(), "%s: %s", who, done.message());
  }
  [[nodiscard]] static status enqueued(char const* who, cudaError_t e) noexcept {
    if (e == cudaSuccess) return {};
    static_cast<void>(cudaGetLastError());
    return status::fail(error::backend, "%s: a copy was refused: %s", who, cudaGetErrorString(e));
  }
  template <exchange X, int N>
  [[nodiscard]] static status say(char const* who, on_cuda const& on, among_ranks<X> const& among,
                                  status const& own, rank_header header,
                                  agreed_number const (&list)[N], index_t const* counts,
                                  offset_t count) noexcept {
    if constexpr (device_exchange<X>) {
      static_assert(rank_messages::bytes == static_cast<offset_t>(message_bytes));
      header.set(list);
      header.set(own);
      on_cuda const there{among.transport.stream(), on.products};
      std::byte* const message = among.transport.message();
      if (message != nullptr) {
        offset_t const in_head = count < rank_messages::first ? count : rank_messages::first;
        index_t const* const tokens = counts != nullptr ? counts + count : nullptr;
        status const written = cuda::launch(there, who, 1, 512, cuda::write_message, header, tokens,
                                            counts, in_head, message);
        if (!written.ok()) return written;
      }
      if (among.report != nullptr) ++among.report->rounds;
      return named(who, among.transport.gather_messages());
    } else {
      return own;
    }
  }

  /// Rows of one exchange must fit the window of a peer_exchange.
  template <exchange X, class Sizes>
  [[nodiscard]] static status room(char const* who, among_ranks<X> const& among,
                                   Sizes const& n) noexcept {
    if constexpr (peer_exchange<X>) {
      offset_t const rows = n.to.rows > n.here.rows ? n.to.rows : n.here.rows,
                     floats = rows * n.to.hidden, ids = n.plan.counts() + 1;
      return named(who, among.transport.room(static_cast<std::size_t>(floats > ids ? floats : ids) *
                                             sizeof(float)));
    }
    return {};
  }
  /// The ranks' hosts agree when the call is enqueued: on all but counts, which devices exchange.
  template <exchange X, int N>
  [[nodiscard]] static status agree_by_host(char const* who, among_ranks<X> const& among,
                                            rank_messages m, status const& own,
                                            rank_header const& header,
                                            agreed_number const (&list)[N]) noexcept {
    using host = std::remove_reference_t<decltype(among.transport.host())>;
    m.counts = 0;
    return detail::agree(who,
                         among_ranks<host>{.transport = among.transport.host(),
                                           .placement = among.placement,
                                           .report = among.report},
                         m, own, header, list);
  }
  /// Whatever the tokens choose in a replay, there is room for it: the same answer on all ranks.
  [[nodiscard]] static status room_for_all(char const* who, across_sizes const& n,
                                           expert_placement const& p,
                                           rank_messages const& m) noexcept {
    offset_t all = 0;
    for (int r = 0; r < n.ranks; ++r) all += m.header(r).tokens * n.top_k;
    for (int r = 0; r < n.ranks; ++r) {
      offset_t const kept = offset_t{n.capacity} * p.on_rank(r),
                     may = n.capacity > 0 && kept < all ? kept : all;
      if (may <= m.header(r).most_rows) continue;
      return status::fail(error::arena_too_small,
                          "%s: rank %d may receive %lld rows; it has memory for %lld "
                          "(among.most_rows, most_tokens)",
                          who, r, static_cast<long long>(may),
                          static_cast<long long>(m.header(r).most_rows));
    }
    return {};
  }
  /// The tables from the counts on the device. The host's starts are bounds, as of rows that stay here.
  template <exchange X>
  [[nodiscard]] static status plan_by_device(char const* who, on_cuda const& on,
                                             among_ranks<X> const& among, across_sizes const& n,
                                             scratch const& s,
                                             basic_across_plan<S> const& to) noexcept {
    across_tables<on_cuda> const& t = s.tables;
    int const rank = among.transport.rank();
    if (status bad = room_for_all(who, n, among.placement, s.messages); !bad.ok()) return bad;
    for (int r = 0; r <= n.ranks; ++r) {
      to.send_start[r] = r > rank ? n.tokens * n.top_k : 0;
      to.recv_start[r] = r > rank ? n.rows : 0;
    }
    if (status bad = enqueued(who, cuda::give_placement(on, n, among.placement, t)); !bad.ok()) {
      return bad;
    }
    status const met = named(
        who, among.transport.all_gather(t.counted.data(), t.counts_of.data(), bytes(t.counted)));
    return met.ok() ? cuda::share_on_device(on, who, rank, n, t, to) : met;
  }
  /// The tables from the counts that came with the messages.
  template <exchange X>
  [[nodiscard]] static status plan_by_host(char const* who, on_cuda const& on,
                                           among_ranks<X> const& among, across_sizes const& n,
                                           scratch const& s,
                                           basic_across_plan<S> const& to) noexcept {
    expert_placement const& p = among.placement;
    if (status bad = counts_make_sense(who, n, s.messages); !bad.ok()) return bad;
    share_capacity(n, s.messages, s.kept);
    if (status bad = room_for_rows(who, n, p, s); !bad.ok()) return bad;
    fill(n, p, among.transport.rank(), s, to);
    across_tables<on_cuda> const& t = s.tables;
    cudaError_t const e =
        cudaMemcpyAsync(t.device.data(), t.host.data(),
                        static_cast<std::size_t>(t.host.extent(0)) * sizeof(index_t),
                        cudaMemcpyHostToDevice, on.stream);
    return enqueued(who, e);
  }
  /// What the host knows: where rows go and come from, and the tables.
  static void fill(across_sizes const& n, expert_placement const& p, int rank, scratch const& s,
                   basic_across_plan<S> const& to) noexcept {
    across_tables<on_cuda> const& t = s.tables;
    rank_messages const& m = s.messages;
    for (int r = 0; r <= n.ranks; ++r) to.recv_start[r] = to.send_start[r] = 0;
    index_t* end = t.host.data();
    index_t rows_here = 0;
    each_transfer(n, p, s.kept, s.of_expert, [&](int source, int owner, index_t, index_t rows) {
      if (source == rank) to.send_start[owner + 1] += rows;
      if (owner != rank) return;
      to.recv_start[source + 1] += rows;
      *end++ = rows_here += rows;
    });
    for (int r = 0; r < n.ranks; ++r) {
      to.send_start[r + 1] += to.send_start[r];
      to.recv_start[r + 1] += to.recv_start[r];
    }
    places_of_rank(p, rank, s.of_expert);
    for (offset_t e = 0; e < n.experts; ++e) {
      t.host[t.at_place + e] = s.of_expert[e];
      t.host[t.at_quota + e] = s.kept(rank, e);
    }
    for (offset_t e = 0; e < n.ids(); ++e) {
      t.host[t.at_wanted + e] = static_cast<index_t>(wanted_by_all(n, m, e));
    }
    for (offset_t i = 0; i < n.local; ++i) {
      t.host[t.at_here + i] = t.host[t.at_wanted + p.expert[p.start[rank] + i]];
    }
    index_t tokens = 0;
    for (int r = 0; r < n.ranks; ++r) tokens += static_cast<index_t>(m.header(r).tokens);
    t.host[t.at_tokens] = tokens;
  }
  /// Rows that came stand in (source, expert, slot) order, so a plan of their experts keeps (source, slot) order.
  [[nodiscard]] static status plan_received(char const* who, on_cuda const& on,
                                            across_sizes const& n, across_tables<on_cuda> const& t,
                                            basic_across_plan<S> const& to) noexcept {
    dispatch_plan<S> const here = to.received();
    memory<index_t, 1> const id = t.received.slice(0, here.tokens);
    status const done = cuda::launch_threads(on, who, id.extent(0), cuda::ids_of_received,
                                             t.device.data(), n.local, n.ranks * n.local, id);
    if (!done.ok()) return done;
    return plan_dispatch(on, memory<index_t const, 2>(id.data(), {{id.extent(0), 1}}), here,
                         t.plan_of_received);
  }
  [[nodiscard]] static status plan_sent(char const* who, on_cuda const& on, index_t const* place,
                                        across_sizes const& n, memory<index_t const, 2> expert,
                                        memory<std::uint8_t const, 1> valid, scratch const& s,
                                        basic_across_plan<S> const& to) noexcept {
    across_tables<on_cuda> const& t = s.tables;
    bool const limited = n.capacity > 0, by_choice = n.levels() > 1;
    offset_t const slots = n.tokens * n.top_k;
    if (limited) {
      if (status bad = clear(on, t.dropped); !bad.ok()) return bad;
      status const laid = cuda::launch_threads(on, who, slots, cuda::lay_competitors, expert, valid,
                                               n.experts, by_choice, t.competitors);
      if (!laid.ok()) return laid;
      memory<index_t const, 2> const ids(
          t.competitors.data(), {{by_choice ? n.top_k : n.tokens, by_choice ? n.tokens : n.top_k}});
      if (status bad = plan_dispatch(on, ids, t.order, t.plan_of_competitors); !bad.ok()) {
        return bad;
      }
    }
    index_t const* const tables = t.device.data();
    cuda::slot_places const by{.experts = n.experts,
                               .zero = n.zero,
                               .places = n.places,
                               .place = place,
                               .quota = limited ? tables + t.at_quota : nullptr,
                               .order = t.order,
                               .by_choice = by_choice,
                               .dropped = t.dropped.data()};
    status done =
        cuda::launch_threads(on, who, slots, cuda::place_of_slots, expert, valid, by, s.place);
    if (!done.ok()) return done;
    done = plan_dispatch(on, memory<index_t const, 2>(s.place), to.to, s.plan,
                         {.valid = valid,
                          .experts = static_cast<index_t>(n.places),
                          .zero_experts = static_cast<index_t>(n.zero),
                          .report = {.totals = s.totals}});
    if (!done.ok() || !limited) return done;
    return cuda::launch_threads(on, who, 1, cuda::count_dropped, t.dropped.data(), s.totals);
  }
};

}  // namespace shunt::detail
