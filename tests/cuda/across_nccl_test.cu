// What every exchange promises, over NCCL: values, the order of streams, sizes that do not fit, a late rank.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "support/exchange_case.hpp"
#include "support/nccl_ranks.hpp"
#include "support/staged_exchange.hpp"

namespace shunt::test {
namespace across_nccl_test {

TEST(CudaAcross, NcclMovesWhatItWasGiven) {
  for (int ranks : {1, 2, 3, 5}) {
    SCOPED_TRACE(ranks);
    on_nccl(ranks, static_cast<std::uint64_t>(ranks), [](over_nccl& x, cudaStream_t stream) {
      staged_exchange<over_nccl> rows(x, stream);
      EXPECT_EQ(exchange_rounds(rows, 8), "");
    });
  }
}

// Two exchanges are on their way while the stream goes on; a third takes the memory of the first.
TEST(CudaAcross, RowsAreOrderedByEventsAlone) {
  on_nccl(3, 11, [](over_nccl& x, cudaStream_t stream) {
    constexpr int each = 700;
    auto const R = static_cast<std::size_t>(x.ranks());
    std::vector<offset_t> start;
    for (std::size_t r = 0; r <= R; ++r) start.push_back(static_cast<offset_t>(r));
    view<offset_t const, 1> const by_rank(start.data(), start.size());
    on_device<std::uint8_t> send(static_cast<offset_t>(R) * each),
        recv(static_cast<offset_t>(R) * each);
    for (int round = 0; round < 4; ++round) {
      int const mine = 10 * round + x.rank();
      ASSERT_EQ(cudaMemsetAsync(send.data(), mine, send.size(), stream), cudaSuccess);
      ASSERT_TRUE(x.begin({send.data(), recv.data(), each, by_rank, by_rank}).ok());
      ASSERT_TRUE(x.finish().ok());
      // What was sent is written over at once: by the next round's memset, or here.
      std::vector<std::uint8_t> got(recv.size());
      ASSERT_EQ(
          cudaMemcpyAsync(got.data(), recv.data(), got.size(), cudaMemcpyDeviceToHost, stream),
          cudaSuccess);
      ASSERT_EQ(cudaMemsetAsync(send.data(), 0xee, send.size(), stream), cudaSuccess);
      ASSERT_TRUE(x.wait().ok());
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i], 10 * round + static_cast<int>(i / each)) << "byte " << i;
      }
    }
  });
}

TEST(CudaAcross, BeginChecksItsRowsAndHowManyAreBegun) {
  on_nccl(1, 1, [](over_nccl& x, cudaStream_t) {
    offset_t const start[] = {0, 2}, other[] = {0, 1}, none[] = {0, 0};
    view<offset_t const, 1> const two(start, 2), one(other, 2), no(none, 2);
    expect_error(x.begin({nullptr, nullptr, 1, two, one}), error::bad_argument,
                 "over_nccl.begin.rows: 2 rows go to the rank itself and 1 come from it; they must "
                 "be as many");
    for (int i = 0; i < most_begun_exchanges; ++i) {
      ASSERT_TRUE(x.begin({nullptr, nullptr, 1, no, no}).ok());
    }
    expect_error(x.begin({nullptr, nullptr, 1, no, no}), error::bad_argument,
                 "over_nccl.begin: 4 exchanges are begun; finish() must come first");
    ASSERT_TRUE(x.finish().ok());
    expect_error(x.all_gather(nullptr, nullptr, 4096), error::bad_argument,
                 "over_nccl.all_gather: bytes is 4096 and out null; NCCL writes to every rank, so "
                 "out must not be null beyond 2048 bytes");
  });
}

// Rank 1 of 3 does not come to the gather of messages.
TEST(CudaAcross, Battery14_ARankThatDoesNotAnswerIsNamedWithinTheDeadline) {
  on_nccl(
      3, 5,
      [](over_nccl& x, cudaStream_t stream) {
        if (x.rank() == 1) return;
        std::vector<std::byte> all(3 * message_bytes);
        ASSERT_EQ(cudaMemsetAsync(x.message(), x.rank(), message_bytes, stream), cudaSuccess);
        status done = x.gather_messages();
        if (done.ok()) done = x.take_messages(all.data());
        expect_error(done, error::peer, "rank 1 of 3 has not answered within 250 ms");
        EXPECT_TRUE(x.aborted());
        expect_error(x.wait(), error::peer,
                     "over_nccl: the communicator was aborted after an error");
        expect_error(x.gather_messages(), error::peer,
                     "over_nccl: the communicator was aborted after an error");
      },
      std::chrono::milliseconds(250));
}

// The test's own NCCL: calls that NCCL would hang on, or answer with garbage, are sentences.
TEST(CudaAcross, TheSoftwareNcclRefusesWhatDoesNotFit) {
  {
    nccl_group group(2, 3);
    on_device<std::byte> bytes(64);
    auto const call = [&](int rank) {
      cudaStream_t stream{};
      ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
      if (rank == 0) {
        ncclSend(bytes.data(), 8, ncclUint8, 1, group[0], stream);
      } else {
        ncclRecv(bytes.data() + 32, 4, ncclUint8, 0, group[1], stream);
      }
      ncclAllReduce(nullptr, nullptr, 1, ncclFloat32, ncclSum, group[rank], stream);
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    };
    std::thread other(call, 1);
    call(0);
    other.join();
  }
  auto said = softnccl::take_sentences();
  std::sort(said.begin(), said.end());
  ASSERT_EQ(said.size(), 3u);
  EXPECT_EQ(said[0], "rank 0 calls a reduction; Shunt uses none");
  EXPECT_EQ(said[1], "rank 1 calls a reduction; Shunt uses none");
  EXPECT_EQ(said[2],
            "rank 1 expects a send of 4 elements of type 1 from rank 0, which calls a send of 8 of "
            "type 1");
}

}  // namespace across_nccl_test
}  // namespace shunt::test
