# Shunt's headers are C++20 for a CUDA compiler too: asks for it on `shunt_target`, in a project that has
# enabled CUDA before. CMake names it as a feature for nvcc from 3.26 on.
if(CMAKE_CUDA_COMPILER_LOADED)
  if("cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
    set_property(TARGET ${shunt_target} APPEND PROPERTY INTERFACE_COMPILE_FEATURES cuda_std_20)
  else()
    set_property(TARGET ${shunt_target} APPEND PROPERTY INTERFACE_COMPILE_OPTIONS
      $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
  endif()
endif()
