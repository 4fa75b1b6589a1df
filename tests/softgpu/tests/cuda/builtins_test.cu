// What device code calls without defining it: printf in all its forms, malloc and free.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "device_array.hpp"

namespace builtins_test {

__global__ void say() {
  printf("%d|%5d|%-5d|%05d|%+d\n", -7, 42, 42, 42, 42);
  printf("%u|%x|%X|%o|%#x\n", 4000000000u, 48879, 48879, 8, 255);
  printf("%ld|%lld|%lu|%llx\n", -5l, -(1ll << 40), 1ul << 40, 0xfedcba9876543210ull);
  printf("%hd|%hhd|%zu\n", 70000, 300, sizeof(double));
  printf("%f|%.3f|%10.2e|%g|%a\n", 1.5, 2.0 / 3, 12345.678, 1e-10, 1.0);
  printf("%c%c%c|%s|%8s|%-8s|%.2s\n", 'a', 'b', 'c', "words", "right", "left", "cut");
  printf("%*d|%-*d|%.*f\n", 6, 1, 6, 2, 2, 3.14159);
  printf("100%%\n");
}

TEST(Builtins, PrintfPrintsAsTheHostDoes) {
  testing::internal::CaptureStdout();
  say<<<1, 1>>>();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  std::string const got = testing::internal::GetCapturedStdout();
  char text[1024];
  int n = 0;
  auto const rest = [&] { return sizeof text - std::size_t(n); };
  n += std::snprintf(text + n, rest(), "%d|%5d|%-5d|%05d|%+d\n", -7, 42, 42, 42, 42);
  n += std::snprintf(text + n, rest(), "%u|%x|%X|%o|%#x\n", 4000000000u, 48879, 48879, 8, 255);
  n += std::snprintf(text + n, rest(), "%ld|%lld|%lu|%llx\n", -5l, -(1ll << 40), 1ul << 40,
                     0xfedcba9876543210ull);
  n += std::snprintf(text + n, rest(), "%hd|%hhd|%zu\n", short(70000), char(300), sizeof(double));
  n += std::snprintf(text + n, rest(), "%f|%.3f|%10.2e|%g|%a\n", 1.5, 2.0 / 3, 12345.678, 1e-10,
                     1.0);
  n += std::snprintf(text + n, rest(), "%c%c%c|%s|%8s|%-8s|%.2s\n", 'a', 'b', 'c', "words", "right",
                     "left", "cut");
  n += std::snprintf(text + n, rest(), "%*d|%-*d|%.*f\n", 6, 1, 6, 2, 2, 3.14159);
  n += std::snprintf(text + n, rest(), "100%%\n");
  EXPECT_EQ(got, text);
}

struct node {
  int value;
  node* next;
};
// Every thread builds a list of its own, sums it up and takes it down.
__global__ void lists(int* out) {
  int const t = threadIdx.x;
  node* head = nullptr;
  for (int k = 0; k <= t % 7; ++k) {
    auto* const n = static_cast<node*>(malloc(sizeof(node)));
    *n = {t + k, head};
    head = n;
  }
  int sum = 0;
  while (head != nullptr) {
    node* const next = head->next;
    sum += head->value;
    free(head);
    head = next;
  }
  free(nullptr);
  out[t] = sum;
}

TEST(Builtins, MallocAndFree) {
  device_array<int> out(std::size_t{64});
  lists<<<1, 64>>>(out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = out.host();
  for (int t = 0; t < 64; ++t) {
    int sum = 0;
    for (int k = 0; k <= t % 7; ++k) sum += t + k;
    EXPECT_EQ(r[t], sum) << t;
  }
}

}  // namespace builtins_test
