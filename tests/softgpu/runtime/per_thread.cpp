// What `--default-stream per-thread` turns calls into: the same, but the null stream is the
// thread's own. Those of copies, fills, launches and pools are beside the calls themselves.
#include <cuda_runtime_api.h>

#include "runtime/stream.hpp"

using softgpu::per_thread;

extern "C" {

cudaError_t cudaStreamSynchronize_ptsz(cudaStream_t s) {
  return cudaStreamSynchronize(per_thread(s));
}
cudaError_t cudaStreamQuery_ptsz(cudaStream_t s) { return cudaStreamQuery(per_thread(s)); }
#if CUDART_VERSION >= 12080
cudaError_t cudaStreamGetDevice_ptsz(cudaStream_t s, int* device) {
  return cudaStreamGetDevice(per_thread(s), device);
}
#endif
cudaError_t cudaStreamGetFlags_ptsz(cudaStream_t s, unsigned* flags) {
  return cudaStreamGetFlags(per_thread(s), flags);
}
cudaError_t cudaStreamGetId_ptsz(cudaStream_t s, unsigned long long* id) {
  return cudaStreamGetId(per_thread(s), id);
}
cudaError_t cudaStreamGetPriority_ptsz(cudaStream_t s, int* priority) {
  return cudaStreamGetPriority(per_thread(s), priority);
}
cudaError_t cudaStreamSetAttribute_ptsz(cudaStream_t s, cudaStreamAttrID a,
                                        cudaStreamAttrValue const* v) {
  return cudaStreamSetAttribute(per_thread(s), a, v);
}
cudaError_t cudaStreamGetAttribute_ptsz(cudaStream_t s, cudaStreamAttrID a,
                                        cudaStreamAttrValue* v) {
  return cudaStreamGetAttribute(per_thread(s), a, v);
}
cudaError_t cudaStreamAttachMemAsync_ptsz(cudaStream_t s, void* p, size_t n, unsigned flags) {
  return cudaStreamAttachMemAsync(per_thread(s), p, n, flags);
}
cudaError_t cudaStreamAddCallback_ptsz(cudaStream_t s, cudaStreamCallback_t f, void* data,
                                       unsigned flags) {
  return cudaStreamAddCallback(per_thread(s), f, data, flags);
}
cudaError_t cudaLaunchHostFunc_ptsz(cudaStream_t s, cudaHostFn_t f, void* data) {
  return cudaLaunchHostFunc(per_thread(s), f, data);
}

cudaError_t cudaEventRecord_ptsz(cudaEvent_t e, cudaStream_t s) {
  return cudaEventRecord(e, per_thread(s));
}
cudaError_t cudaEventRecordWithFlags_ptsz(cudaEvent_t e, cudaStream_t s, unsigned flags) {
  return cudaEventRecordWithFlags(e, per_thread(s), flags);
}
cudaError_t cudaStreamWaitEvent_ptsz(cudaStream_t s, cudaEvent_t e, unsigned flags) {
  return cudaStreamWaitEvent(per_thread(s), e, flags);
}

cudaError_t cudaMallocAsync_ptsz(void** out, size_t bytes, cudaStream_t s) {
  return cudaMallocAsync(out, bytes, per_thread(s));
}
cudaError_t cudaFreeAsync_ptsz(void* p, cudaStream_t s) { return cudaFreeAsync(p, per_thread(s)); }

cudaError_t cudaStreamBeginCapture_ptsz(cudaStream_t s, cudaStreamCaptureMode mode) {
  return cudaStreamBeginCapture(per_thread(s), mode);
}
cudaError_t cudaStreamBeginCaptureToGraph_ptsz(cudaStream_t s, cudaGraph_t graph,
                                               cudaGraphNode_t const* after,
                                               cudaGraphEdgeData const* data, size_t count,
                                               cudaStreamCaptureMode mode) {
  return cudaStreamBeginCaptureToGraph(per_thread(s), graph, after, data, count, mode);
}
cudaError_t cudaStreamEndCapture_ptsz(cudaStream_t s, cudaGraph_t* out) {
  return cudaStreamEndCapture(per_thread(s), out);
}
cudaError_t cudaStreamIsCapturing_ptsz(cudaStream_t s, cudaStreamCaptureStatus* status) {
  return cudaStreamIsCapturing(per_thread(s), status);
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo_ptsz(cudaStream_t s, cudaStreamCaptureStatus* status,
                                          unsigned long long* id, cudaGraph_t* graph,
                                          cudaGraphNode_t const** tips,
                                          cudaGraphEdgeData const** edges, size_t* count) {
  return cudaStreamGetCaptureInfo(per_thread(s), status, id, graph, tips, edges, count);
}
#else
cudaError_t cudaStreamGetCaptureInfo_v2_ptsz(cudaStream_t s, cudaStreamCaptureStatus* status,
                                             unsigned long long* id, cudaGraph_t* graph,
                                             cudaGraphNode_t const** tips, size_t* count) {
  return cudaStreamGetCaptureInfo_v2(per_thread(s), status, id, graph, tips, count);
}
cudaError_t cudaStreamGetCaptureInfo_v3_ptsz(cudaStream_t s, cudaStreamCaptureStatus* status,
                                             unsigned long long* id, cudaGraph_t* graph,
                                             cudaGraphNode_t const** tips,
                                             cudaGraphEdgeData const** edges, size_t* count) {
  return cudaStreamGetCaptureInfo_v3(per_thread(s), status, id, graph, tips, edges, count);
}
#endif

cudaError_t cudaGraphLaunch_ptsz(cudaGraphExec_t e, cudaStream_t s) {
  return cudaGraphLaunch(e, per_thread(s));
}
cudaError_t cudaGraphUpload_ptsz(cudaGraphExec_t e, cudaStream_t s) {
  return cudaGraphUpload(e, per_thread(s));
}
cudaError_t cudaGraphInstantiateWithParams_ptsz(cudaGraphExec_t* out, cudaGraph_t graph,
                                                cudaGraphInstantiateParams* p) {
  return cudaGraphInstantiateWithParams(out, graph, p);
}

}  // extern "C"
