# The module _cuda: the bindings' sources once more, compiled by nvcc, and linked with the CUDA runtime.
# In Shunt's own tests that is whatever runs the CUDA tests (tests/softgpu/add_test.cmake), for one
# architecture; else the static runtime of the toolkit, as nothing else is needed then where it runs.
set(SHUNT_PYTHON_CUDA_ARCHITECTURES "" CACHE STRING
    "nvcc's architectures, as 80;90;120, or native; empty: this machine's GPU, or else PTX for any")

set(missing)
if(DEFINED softgpu_nvcc_target AND TARGET GTest::gtest)
  set(nvcc ${SOFTGPU_NVCC})
  set(nvcc_target ${softgpu_nvcc_target})
  set(cuda_include ${SOFTGPU_CUDA_INCLUDE})
  set(cuda_runtime ${softgpu_runtime})
  if(softgpu_device STREQUAL "soft")  # tests reach the device's memory through the module
    set(cuda_runtime -Wl,--whole-archive softgpu -Wl,--no-whole-archive -Wl,-Bsymbolic)
  endif()
else()
  find_program(SHUNT_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS /usr/local/cuda/bin)
  set(nvcc ${SHUNT_NVCC})
  if(nvcc)
    get_filename_component(toolkit ${nvcc} REALPATH)
    get_filename_component(toolkit ${toolkit} DIRECTORY)
    get_filename_component(toolkit ${toolkit} DIRECTORY)
    set(targets ${toolkit}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux)
    find_path(SHUNT_CUDA_INCLUDE cuda_runtime_api.h HINTS ${toolkit}/include ${targets}/include)
    find_library(SHUNT_CUDART cudart_static HINTS ${toolkit}/lib64 ${toolkit}/lib ${targets}/lib)
    find_package(Threads REQUIRED)
    set(cuda_include ${SHUNT_CUDA_INCLUDE})
    set(cuda_runtime ${SHUNT_CUDART} ${CMAKE_DL_LIBS} rt Threads::Threads)

    # A machine with a GPU builds machine code for that one alone. Elsewhere it is PTX, which is the same
    # kernels wherever a driver compiles it: none of them has a part for later architectures.
    set(architectures "${SHUNT_PYTHON_CUDA_ARCHITECTURES}")
    execute_process(COMMAND nvidia-smi -L OUTPUT_VARIABLE gpus ERROR_QUIET RESULT_VARIABLE no_gpu)
    if(NOT architectures AND NOT no_gpu AND gpus MATCHES "^GPU ")
      set(architectures native)
    endif()
    set(nvcc_target --threads=0)
    if(architectures)
      set(cuda_code "machine code for ${architectures}")
      list(GET architectures -1 last)
      foreach(architecture IN LISTS architectures)
        if(architecture STREQUAL "native")
          list(APPEND nvcc_target -arch=native)
          continue()
        endif()
        set(code sm_${architecture})
        if(architecture STREQUAL last)  # and PTX for those after it
          string(APPEND code ,compute_${architecture})
        endif()
        list(APPEND nvcc_target -gencode=arch=compute_${architecture},code=[${code}])
      endforeach()
    else()
      string(CONCAT cuda_code "PTX of compute_80, which the driver compiles at the first use "
                              "(SHUNT_PYTHON_CUDA_ARCHITECTURES gives machine code)")
      list(APPEND nvcc_target -gencode=arch=compute_80,code=compute_80)
    endif()

    # A compiler that this nvcc does not take, say.
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/try.cu "#include <cuda_runtime.h>\n#include <concepts>\n")
    execute_process(COMMAND ${nvcc} -ccbin ${CMAKE_CXX_COMPILER} ${nvcc_target} -std=c++20
      -c ${CMAKE_CURRENT_BINARY_DIR}/try.cu -o ${CMAKE_CURRENT_BINARY_DIR}/try.o
      OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE nvcc_failed)
  endif()
  if(NOT nvcc)
    set(missing "there is no nvcc (set CUDA_HOME)")
  elseif(NOT SHUNT_CUDA_INCLUDE OR NOT SHUNT_CUDART)
    set(missing "beside ${nvcc} there is no cuda_runtime_api.h, or no libcudart_static.a")
  elseif(nvcc_failed)
    set(missing "${nvcc} does not compile: ${said}")
  endif()
endif()
if(NOT nvcc OR missing)
  if(NOT SHUNT_PYTHON_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "SHUNT_PYTHON_CUDA is ${SHUNT_PYTHON_CUDA}, and ${missing}")
  endif()
  message(STATUS "The Python module takes host memory only: ${missing}")
  return()
endif()

# Its host half enqueues, and computes nothing: -O1 does.
set(cuda_object ${CMAKE_CURRENT_BINARY_DIR}/cuda_stages.o)
add_custom_command(OUTPUT ${cuda_object}
  COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${nvcc} -ccbin ${CMAKE_CXX_COMPILER} ${nvcc_target} -std=c++20
          -diag-suppress 20012 -DNDEBUG -DSHUNT_BINDINGS_CUDA -DNB_DOMAIN=shunt
          -DSHUNT_WIDEST_REGION=1 -I${here}/../include -isystem ${NB_DIR}/include
          "-isystem=$<JOIN:${Python_INCLUDE_DIRS},;-isystem=>" -Xcompiler
          -fPIC,-fvisibility=hidden,-fno-strict-aliasing,-Wall,-Wextra -Xcompiler=-O1
          -MD -MF ${cuda_object}.d -c ${here}/src/cuda_stages.cu -o ${cuda_object}
  DEPENDS ${here}/src/cuda_stages.cu DEPFILE ${cuda_object}.d COMMENT "nvcc cuda_stages.cu"
  COMMAND_EXPAND_LISTS VERBATIM)
nanobind_add_module(shunt_cuda NB_DOMAIN shunt NOMINSIZE src/cuda_module.cpp ${cuda_object}
  $<TARGET_OBJECTS:shunt_bindings>)
set_target_properties(shunt_cuda PROPERTIES OUTPUT_NAME _cuda
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/shunt)
target_compile_features(shunt_cuda PRIVATE cxx_std_20)
target_compile_definitions(shunt_cuda PRIVATE SHUNT_BINDINGS_CUDA SHUNT_WIDEST_REGION=1)
target_include_directories(shunt_cuda PRIVATE ${here}/../include)
target_include_directories(shunt_cuda SYSTEM PRIVATE ${NB_DIR}/include ${Python_INCLUDE_DIRS}
  ${cuda_include})
target_link_libraries(shunt_cuda PRIVATE ${cuda_runtime})
nanobind_add_stub(shunt_cuda_stub MODULE shunt._cuda OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/shunt/_cuda.pyi
  PYTHON_PATH ${CMAKE_CURRENT_BINARY_DIR} DEPENDS shunt_cuda shunt_host)
list(APPEND modules shunt_cuda)
list(APPEND stubs shunt_cuda_stub)
message(STATUS "The Python module takes CUDA memory too (nvcc: ${nvcc} ${nvcc_target})")
if(cuda_code)
  message(STATUS "Its kernels are ${cuda_code}")
endif()
