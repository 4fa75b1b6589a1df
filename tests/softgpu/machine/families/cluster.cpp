// Thread block clusters, of one block each: a cluster's barrier is a barrier of the block, whose
// shared memory is the cluster's. Addresses of other blocks (mapa) do not exist.
#include "machine/block.hpp"
#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"

namespace softgpu {
namespace {

using namespace baseline;

constexpr int cluster_barrier = 16;  // of block::barriers, past those a kernel can name

void nothing(warp&, op const&) {}
void build_nothing(builder& b) { b.emit(&nothing); }

// Waiting counts as arriving: each thread must do both, in this order.
void wait(warp& w, op const&) { w.block->arrive(w, cluster_barrier, 0, 0, true, nullptr); }
void build_wait(builder& b) { b.emit(&wait); }

template <class T> constexpr auto rank_of = [](T) { return u32{0}; };
void build_rank(builder& b) {
  b.type().bits == 64 ? emit1<rank_of<u64>, u32, u64>(b) : emit1<rank_of<u32>, u32, u32>(b);
}

constexpr form rows[] = {
    {"barrier.cluster.arrive{.release|relaxed}{.aligned}", kind::control, build_nothing},
    {"barrier.cluster.wait{.acquire}{.aligned}", kind::control, build_wait},
    {"getctarank{.shared::cluster}.u32|u64 d, a", kind::integer, build_rank},
    // Dependent launches: a grid begins when the one before it has ended, whatever they say.
    {"griddepcontrol.launch_dependents|wait", kind::control, build_nothing},
    {"setmaxnreg.inc|dec.sync.aligned.u32 n", kind::control, build_nothing},
};

}  // namespace

std::span<form const> cluster_family() { return rows; }

}  // namespace softgpu
