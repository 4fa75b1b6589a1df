# The module _cuda: the bindings' sources once more, compiled by nvcc, and linked with the CUDA runtime.
# In Shunt's own tests that is whatever runs the CUDA tests (tests/softgpu/add_test.cmake), for one
# architecture; else the static runtime of the toolkit, as nothing else is needed then where it runs.
set(SHUNT_PYTHON_CUDA_ARCHITECTURES "" CACHE STRING
    "nvcc's architectures, as 80;90;120; native; empty: this machine's GPU, or else 80;90")

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

    # Machine code for each architecture, and PTX of sm_90 for those after it: ptxas needs more than a
    # minute for each of them, and a machine with a GPU builds for that one alone.
    set(architectures "${SHUNT_PYTHON_CUDA_ARCHITECTURES}")
    if(NOT architectures)
      execute_process(COMMAND nvidia-smi -L OUTPUT_VARIABLE gpus ERROR_QUIET RESULT_VARIABLE no_gpu)
      if(NOT no_gpu AND gpus MATCHES "^GPU ")
        set(architectures native)
      else()
        set(architectures 80 90)
      endif()
    endif()
    execute_process(COMMAND ${nvcc} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)
    set(nvcc_target --threads=0)
    foreach(architecture IN LISTS architectures)
      if(architecture STREQUAL "native")
        list(APPEND nvcc_target -arch=native)
      elseif(SHUNT_PYTHON_CUDA_ARCHITECTURES OR known MATCHES "sm_${architecture}\n")
        set(code sm_${architecture})
        if(architecture EQUAL 90)
          string(APPEND code ,compute_90)
        endif()
        list(APPEND nvcc_target -gencode=arch=compute_${architecture},code=[${code}])
      endif()
    endforeach()

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
  elseif(NOT nvcc_target MATCHES "arch")
    set(missing "${nvcc} knows none of the architectures ${architectures}")
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

set(cuda_objects)
foreach(unit cuda_rows cuda_products)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${unit}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${nvcc} -ccbin ${CMAKE_CXX_COMPILER} ${nvcc_target} -std=c++20
            -diag-suppress 20012 -DNDEBUG -DSHUNT_BINDINGS_CUDA -DNB_DOMAIN=shunt
            -DSHUNT_WIDEST_REGION=1 -I${here}/../include -isystem ${NB_DIR}/include
            "-isystem=$<JOIN:${Python_INCLUDE_DIRS},;-isystem=>" -Xcompiler
            -fPIC,-fvisibility=hidden,-fno-strict-aliasing,-Wall,-Wextra
            $<IF:$<BOOL:${PROJECT_IS_TOP_LEVEL}>,-Xcompiler=-O2,-Xcompiler=-O1>
            -MD -MF ${object}.d -c ${here}/src/${unit}.cu -o ${object}
    DEPENDS ${here}/src/${unit}.cu DEPFILE ${object}.d COMMENT "nvcc ${unit}.cu" COMMAND_EXPAND_LISTS
    VERBATIM)
  list(APPEND cuda_objects ${object})
endforeach()
nanobind_add_module(shunt_cuda NB_DOMAIN shunt NOMINSIZE src/cuda_module.cpp ${cuda_objects}
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
