#pragma once
#include "shunt/across/exchange.hpp"

/// What the layer asks of a transport between devices, beside the calls of an exchange.
namespace shunt {

/// Bytes of the message by which a rank of devices says what it wants: see device_exchange.
inline constexpr std::size_t message_bytes = 2048;

/// An exchange whose pointers are a device's. Its calls enqueue and do not wait; take_messages alone does. The
/// messages are memory of its own, so that a rank without any can still take part.
///   stream()          what its calls come behind: the policy's stream must be this one
///   message()         what this rank says: message_bytes on the device, written before gather_messages()
///   gather_messages() brings those of all ranks to messages(), by rank: enqueued
///   take_messages(to) waits for that and copies them to the host, or error::peer; `to` null: waits alone
template <class X>
concept device_exchange =
    exchange<X> && X::memory == space::device && requires(X& x, X const& c, void* to) {
      c.stream();
      { x.message() } -> std::same_as<std::byte*>;
      { x.messages() } -> std::same_as<std::byte*>;
      { x.gather_messages() } -> std::same_as<status>;
      { x.take_messages(to) } -> std::same_as<status>;
    };

/// An exchange between devices whose ranks agree by host() when calls are enqueued, and whose calls read on the device
/// how many rows go where: exchange_rows::send_there and recv_there.
template <class X>
concept peer_exchange = exchange<X> && X::memory == space::device && requires(X& x, X const& c) {
  c.stream();
  requires exchange<std::remove_reference_t<decltype(x.host())>>;
  { c.room(std::size_t{}) } -> std::same_as<status>;
};

}  // namespace shunt
