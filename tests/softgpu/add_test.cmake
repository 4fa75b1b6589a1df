# How CUDA sources are compiled for the device that tests run on, and linked with it.
set(softgpu_include_dir ${CMAKE_CURRENT_LIST_DIR}/include CACHE INTERNAL "")
set(softgpu_device ${softgpu_device} CACHE INTERNAL "")
set(SOFTGPU_ARCHITECTURE native CACHE STRING "nvcc's -arch for tests on a GPU")
if(softgpu_device STREQUAL "gpu")
  find_library(SOFTGPU_CUDART cudart_static HINTS ${softgpu_toolkit}/lib64
    ${softgpu_toolkit}/lib ${softgpu_toolkit}/targets/x86_64-linux/lib REQUIRED)
  set(softgpu_nvcc_target -arch=${SOFTGPU_ARCHITECTURE} CACHE INTERNAL "")
  set(softgpu_runtime ${SOFTGPU_CUDART} ${CMAKE_DL_LIBS} rt Threads::Threads CACHE INTERNAL "")
else()
  set(softgpu_nvcc_target -gencode arch=compute_80,code=compute_80 --no-compress -cudart none
    CACHE INTERNAL "")
  set(softgpu_runtime softgpu CACHE INTERNAL "")
endif()

# softgpu_compile(out name source [INCLUDES dirs…] [OPTIONS flags…]): a rule that makes an object of a
# CUDA source, for the device that tests run on; its path is put into the variable `out`.
function(softgpu_compile out name source)
  cmake_parse_arguments(cuda "" "" "INCLUDES;OPTIONS" ${ARGN})
  get_filename_component(path ${source} ABSOLUTE)
  get_filename_component(stem ${source} NAME_WE)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.dir/${stem}.o)
  set(includes)
  foreach(dir ${cuda_INCLUDES} ${softgpu_include_dir})
    list(APPEND includes -I${dir})
  endforeach()
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/${name}.dir
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${SOFTGPU_NVCC} -ccbin ${CMAKE_CXX_COMPILER}
            ${softgpu_nvcc_target} -std=c++20 -Xcompiler -O2
            -lineinfo -diag-suppress 20012 ${includes} ${cuda_OPTIONS} -MD -MF ${object}.d
            -c ${path} -o ${object}
    DEPENDS ${path} DEPFILE ${object}.d COMMENT "nvcc ${stem}.cu" VERBATIM)
  set(${out} ${object} PARENT_SCOPE)
endfunction()

# softgpu_add_test(name sources… [INCLUDES dirs…] [OPTIONS flags…] [LIBRARIES targets…] [NO_MAIN])
# CUDA and C++ sources to one GoogleTest executable. The sources see nothing of the software device:
# it takes the place of libcudart when they are linked, and a GPU's own runtime where there is one.
# A source that includes softgpu/softgpu.hpp looks inside the device; on a GPU its test is left out.
function(softgpu_add_test name)
  cmake_parse_arguments(test "NO_MAIN" "" "INCLUDES;OPTIONS;LIBRARIES" ${ARGN})
  set(objects)
  foreach(source ${test_UNPARSED_ARGUMENTS})
    get_filename_component(path ${source} ABSOLUTE)
    file(STRINGS ${path} inside REGEX "#include .softgpu/softgpu.hpp." LIMIT_COUNT 1)
    if(inside AND softgpu_device STREQUAL "gpu")
      add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo
        "not run: ${name}: it looks inside the software device, and a GPU runs the tests")
      return()
    endif()
    if(NOT path MATCHES "\\.cu$")
      list(APPEND objects ${path})
      continue()
    endif()
    softgpu_compile(object ${name} ${path} INCLUDES ${test_INCLUDES} OPTIONS ${test_OPTIONS})
    list(APPEND objects ${object})
  endforeach()
  add_executable(${name} ${objects})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(${name} PRIVATE ${test_INCLUDES})
  target_include_directories(${name} SYSTEM PRIVATE ${SOFTGPU_CUDA_INCLUDE})
  target_link_libraries(${name} PRIVATE ${test_LIBRARIES} ${softgpu_runtime} GTest::gtest)
  if(NOT test_NO_MAIN)
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${SOFTGPU_TIMEOUT} LABELS cuda)
endfunction()
