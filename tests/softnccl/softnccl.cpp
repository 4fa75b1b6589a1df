// NCCL for tests: ranks are threads, all on one device. A group of calls meets those of the other ranks
// on the host; what it moves is enqueued as device copies that wait for the sender's stream, and the
// sender's stream waits for the copies, by events alone. A rank that is not there leaves the others'
// calls ncclInProgress, as on a communicator that does not block.
#include "softnccl.hpp"

#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <utility>

namespace {

using std::chrono::milliseconds;

enum class kind { rows, gather };

/// What is sent, seen by both sides.
struct message {
  kind what{};
  void const* from = nullptr;
  std::size_t count = 0;
  ncclDataType_t type{};
  cudaStream_t stream{};  // of the sender
  cudaEvent_t ready{}, read{};
  bool taken = false;
};
using shared_message = std::shared_ptr<message>;
struct wish {
  kind what{};
  void* to = nullptr;
  std::size_t count = 0;
  ncclDataType_t type{};
  int source = 0;
  cudaStream_t stream{};
  cudaEvent_t ready{};  // what the receiver's stream had before it
};

std::atomic<std::uint64_t> the_seed{1};

struct meeting_place {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::deque<shared_message>> box;  // [from * ranks + to]
  std::mt19937_64 dice{the_seed.load()};
  int ranks = 0;
};

struct complaints {
  std::mutex mutex;
  std::vector<std::string> sentences;
  ~complaints() {
    if (sentences.empty()) return;
    for (auto const& s : sentences) std::fprintf(stderr, "softnccl: %s\n", s.c_str());
    std::fflush(nullptr);
    _exit(87);
  }
};
complaints& the_complaints() {
  static complaints all;
  return all;
}
template <class... Numbers> ncclResult_t complain(char const* format, Numbers... numbers) {
  char text[240];
  std::snprintf(text, sizeof text, format, numbers...);
  std::lock_guard const lock(the_complaints().mutex);
  the_complaints().sentences.emplace_back(text);
  return ncclInvalidUsage;
}

std::size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8: return 1;
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32: return 4;
    default: return 8;
  }
}
char const* name_of(kind k) { return k == kind::rows ? "send" : "all-gather"; }

cudaEvent_t recorded(cudaStream_t stream) {
  cudaEvent_t e{};
  if (cudaEventCreateWithFlags(&e, cudaEventDisableTiming) != cudaSuccess ||
      cudaEventRecord(e, stream) != cudaSuccess) {
    complain("an event was refused: %s", cudaGetErrorString(cudaGetLastError()));
  }
  return e;
}
void wait_for(cudaStream_t stream, cudaEvent_t e) {
  if (cudaStreamWaitEvent(stream, e, 0) != cudaSuccess) complain("a wait was refused");
}

}  // namespace

struct ncclComm {
  static constexpr int lanes = 3;
  std::shared_ptr<meeting_place> place;
  int rank = 0;
  std::list<wish> wishes;            // in the order of the calls
  std::vector<shared_message> sent;  // whose readers this rank's stream does not wait for yet
  cudaStream_t lane[lanes] = {};     // transfers of one group are not ordered among themselves
  ncclResult_t wrong = ncclSuccess;

  void transfer(wish const& w, message& m) {
    if (w.what != m.what || w.count != m.count || w.type != m.type) {
      wrong = complain(
          "rank %d expects a %s of %zu elements of type %d from rank %d, which calls a "
          "%s of %zu of type %d",
          rank, name_of(w.what), w.count, int(w.type), w.source, name_of(m.what), m.count,
          int(m.type));
    }
    cudaStream_t const on = lane[place->dice() % lanes];
    wait_for(on, w.ready);
    wait_for(on, m.ready);
    std::size_t const bytes = std::min(w.count, m.count) * bytes_of(w.type);
    if (bytes > 0 &&
        cudaMemcpyAsync(w.to, m.from, bytes, cudaMemcpyDeviceToDevice, on) != cudaSuccess) {
      wrong = complain("a copy was refused: %s", cudaGetErrorString(cudaGetLastError()));
    }
    cudaEvent_t const here = recorded(on);
    wait_for(w.stream, here);
    m.read = here;
    m.taken = true;
  }
  /// What can be done now; whether all is.
  bool step() {
    std::vector<int> sources(static_cast<std::size_t>(place->ranks));
    for (std::size_t i = 0; i < sources.size(); ++i) sources[i] = static_cast<int>(i);
    std::shuffle(sources.begin(), sources.end(), place->dice);
    for (int const source : sources) {
      auto& box = place->box[static_cast<std::size_t>(source * place->ranks + rank)];
      for (auto w = wishes.begin(); w != wishes.end() && !box.empty();) {
        if (w->source != source) {
          ++w;
          continue;
        }
        transfer(*w, *box.front());
        box.pop_front();
        cudaEventDestroy(w->ready);
        w = wishes.erase(w);
        place->changed.notify_all();
      }
    }
    auto const done = [](shared_message const& m) {
      if (!m->taken) return false;
      wait_for(m->stream, m->read);
      cudaEventDestroy(m->ready);
      cudaEventDestroy(m->read);
      return true;
    };
    sent.erase(std::remove_if(sent.begin(), sent.end(), done), sent.end());
    return wishes.empty() && sent.empty();
  }
  ncclResult_t meet(milliseconds patience) {
    std::unique_lock lock(place->mutex);
    auto const until = std::chrono::steady_clock::now() + patience;
    while (!step()) {
      if (place->changed.wait_until(lock, until) == std::cv_status::timeout && !step()) {
        return ncclInProgress;
      }
    }
    return wrong;
  }
};

namespace {

struct group {
  int depth = 0;
  std::vector<ncclComm_t> comms;
};
group& the_group() {
  thread_local group g;
  return g;
}
ncclResult_t close_group() {
  group& g = the_group();
  ncclResult_t worst = ncclSuccess;
  for (ncclComm_t const c : g.comms) {
    ncclResult_t const r = c->meet(milliseconds(softnccl::configure().patience_ms));
    if (r != ncclSuccess) worst = r;
  }
  g.comms.clear();
  return worst;
}
/// A call inside a group, or by itself.
template <class Calls> ncclResult_t enter(ncclComm_t comm, Calls const& calls) {
  group& g = the_group();
  {
    std::lock_guard const lock(comm->place->mutex);
    calls();
    comm->place->changed.notify_all();
  }
  if (std::find(g.comms.begin(), g.comms.end(), comm) == g.comms.end()) g.comms.push_back(comm);
  return g.depth > 0 ? ncclSuccess : close_group();
}
void post(ncclComm_t comm, kind what, void const* from, std::size_t count, ncclDataType_t type,
          int peer, cudaStream_t stream) {
  auto const m = std::make_shared<message>();
  *m = {what, from, count, type, stream, recorded(stream), {}, false};
  comm->place->box[static_cast<std::size_t>(comm->rank * comm->place->ranks + peer)].push_back(m);
  comm->sent.push_back(m);
}
bool known(ncclComm_t comm, int peer) {
  if (comm != nullptr && peer >= 0 && peer < comm->place->ranks) return true;
  complain("peer %d is no rank of the communicator", peer);
  return false;
}

}  // namespace

namespace softnccl {

std::vector<std::string> take_sentences() {
  std::lock_guard const lock(the_complaints().mutex);
  return std::exchange(the_complaints().sentences, {});
}
void shuffle(std::uint64_t seed) { the_seed = seed; }
settings& configure() {
  static settings s;
  return s;
}

}  // namespace softnccl

extern "C" {

ncclResult_t ncclCommInitAll(ncclComm_t* comms, int count, int const*) {
  the_complaints();  // made first, and so destroyed last
  auto const place = std::make_shared<meeting_place>();
  place->ranks = count;
  place->box.resize(static_cast<std::size_t>(count * count));
  for (int r = 0; r < count; ++r) {
    comms[r] = new ncclComm;
    comms[r]->place = place;
    comms[r]->rank = r;
    for (auto& lane : comms[r]->lane) cudaStreamCreateWithFlags(&lane, cudaStreamNonBlocking);
  }
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (!comm->wishes.empty() || !comm->sent.empty()) {
    complain("rank %d is destroyed with calls that no other rank has met", comm->rank);
  }
  return ncclCommAbort(comm);
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  {
    std::lock_guard const lock(comm->place->mutex);
    for (wish const& w : comm->wishes) cudaEventDestroy(w.ready);
    for (auto const& m : comm->sent) {
      for (auto& box : comm->place->box)
        box.erase(std::remove(box.begin(), box.end(), m), box.end());
      cudaEventDestroy(m->ready);
      if (m->taken) cudaEventDestroy(m->read);
    }
  }
  for (auto const lane : comm->lane) cudaStreamDestroy(lane);
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->meet(milliseconds(1));
  return ncclSuccess;
}
ncclResult_t ncclCommCount(ncclComm_t comm, int* count) {
  *count = comm->place->ranks;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
char const* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclInvalidUsage: return "invalid usage";
    case ncclInvalidArgument: return "invalid argument";
    case ncclRemoteError: return "remote error";
    case ncclInProgress: return "in progress";
    default: return "an error";
  }
}
ncclResult_t ncclGroupStart() {
  ++the_group().depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  group& g = the_group();
  if (g.depth == 0) return complain("ncclGroupEnd without ncclGroupStart");
  return --g.depth > 0 ? ncclSuccess : close_group();
}
ncclResult_t ncclSend(void const* from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  if (!known(comm, peer)) return ncclInvalidArgument;
  return enter(comm, [&] { post(comm, kind::rows, from, count, type, peer, stream); });
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (!known(comm, peer)) return ncclInvalidArgument;
  return enter(comm, [&] {
    comm->wishes.push_back({kind::rows, to, count, type, peer, stream, recorded(stream)});
  });
}
ncclResult_t ncclAllGather(void const* from, void* to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return enter(comm, [&] {
    for (int r = 0; r < comm->place->ranks; ++r) {
      post(comm, kind::gather, from, count, type, r, stream);
      comm->wishes.push_back(
          {kind::gather, static_cast<char*>(to) + static_cast<size_t>(r) * count * bytes_of(type),
           count, type, r, stream, recorded(stream)});
    }
  });
}
ncclResult_t ncclAllReduce(void const*, void*, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t comm,
                           cudaStream_t) {
  return complain("rank %d calls a reduction; Shunt uses none", comm->rank);
}

}  // extern "C"
