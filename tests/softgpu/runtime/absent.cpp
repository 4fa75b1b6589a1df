// Calls this device does not have. They link, and say so when they are made: each takes no argument
// here, as none is looked at, so the runtime's own declarations must stay out of sight.
namespace softgpu {
int absent(char const* call);
}

#define SOFTGPU_ABSENT(name) \
  extern "C" int name() { return softgpu::absent(#name); }

// Textures, surfaces and arrays.
SOFTGPU_ABSENT(cudaCreateTextureObject)
SOFTGPU_ABSENT(cudaDestroyTextureObject)
SOFTGPU_ABSENT(cudaCreateSurfaceObject)
SOFTGPU_ABSENT(cudaDestroySurfaceObject)
SOFTGPU_ABSENT(cudaMallocArray)
SOFTGPU_ABSENT(cudaMalloc3DArray)
SOFTGPU_ABSENT(cudaMallocMipmappedArray)
SOFTGPU_ABSENT(cudaFreeArray)
SOFTGPU_ABSENT(cudaFreeMipmappedArray)
SOFTGPU_ABSENT(cudaMemcpyToArray)
SOFTGPU_ABSENT(cudaMemcpyFromArray)
SOFTGPU_ABSENT(cudaMemcpy2DToArray)
SOFTGPU_ABSENT(cudaMemcpy2DFromArray)
SOFTGPU_ABSENT(cudaMemcpy2DToArrayAsync)
SOFTGPU_ABSENT(cudaMemcpy2DFromArrayAsync)

// Other processes, other devices, other interfaces.
SOFTGPU_ABSENT(cudaIpcGetMemHandle)
SOFTGPU_ABSENT(cudaIpcOpenMemHandle)
SOFTGPU_ABSENT(cudaIpcCloseMemHandle)
SOFTGPU_ABSENT(cudaIpcGetEventHandle)
SOFTGPU_ABSENT(cudaIpcOpenEventHandle)
SOFTGPU_ABSENT(cudaImportExternalMemory)
SOFTGPU_ABSENT(cudaDestroyExternalMemory)
SOFTGPU_ABSENT(cudaExternalMemoryGetMappedBuffer)
SOFTGPU_ABSENT(cudaImportExternalSemaphore)
SOFTGPU_ABSENT(cudaDestroyExternalSemaphore)
SOFTGPU_ABSENT(cudaMemPoolExportToShareableHandle)
SOFTGPU_ABSENT(cudaMemPoolImportFromShareableHandle)
SOFTGPU_ABSENT(cudaGraphicsMapResources)
SOFTGPU_ABSENT(cudaGraphicsUnmapResources)
SOFTGPU_ABSENT(cudaGetExportTable)
SOFTGPU_ABSENT(cudaGetFuncBySymbol)

// Modules loaded at run time.
SOFTGPU_ABSENT(cudaLibraryLoadData)
SOFTGPU_ABSENT(cudaLibraryLoadFromFile)
SOFTGPU_ABSENT(cudaLibraryUnload)
SOFTGPU_ABSENT(cudaLibraryGetKernel)
SOFTGPU_ABSENT(cudaLibraryGetGlobal)

// Graphs: nodes of other kinds, what is only for show.
SOFTGPU_ABSENT(cudaGraphAddNode)
SOFTGPU_ABSENT(cudaGraphAddMemAllocNode)
SOFTGPU_ABSENT(cudaGraphAddMemFreeNode)
SOFTGPU_ABSENT(cudaDeviceGetGraphMemAttribute)
SOFTGPU_ABSENT(cudaDeviceSetGraphMemAttribute)
SOFTGPU_ABSENT(cudaGraphAddEventRecordNode)
SOFTGPU_ABSENT(cudaGraphAddEventWaitNode)
SOFTGPU_ABSENT(cudaGraphConditionalHandleCreate)
SOFTGPU_ABSENT(cudaGraphDebugDotPrint)
SOFTGPU_ABSENT(cudaUserObjectCreate)
SOFTGPU_ABSENT(cudaUserObjectRetain)
SOFTGPU_ABSENT(cudaUserObjectRelease)
SOFTGPU_ABSENT(cudaGraphRetainUserObject)
SOFTGPU_ABSENT(cudaGraphReleaseUserObject)

// Clusters, batches of copies.
SOFTGPU_ABSENT(cudaOccupancyMaxActiveClusters)
SOFTGPU_ABSENT(cudaOccupancyMaxPotentialClusterSize)
SOFTGPU_ABSENT(cudaMemcpyBatchAsync)
SOFTGPU_ABSENT(cudaMemcpy3DBatchAsync)
SOFTGPU_ABSENT(cudaMemPrefetchBatchAsync)
SOFTGPU_ABSENT(cudaMemRangeGetAttribute)
