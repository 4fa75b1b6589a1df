# shunt::kernels: shunt::shunt with the host kernels and the layer compiled once, in a static library of
# the project's own flags, instead of in each file that includes them. Units of another -march or
# SHUNT_WIDEST_REGION do not link with it.
if(NOT TARGET shunt_kernels)
  set(shunt_kernels_source ${CMAKE_CURRENT_BINARY_DIR}/shunt_kernels.cpp)
  file(CONFIGURE OUTPUT ${shunt_kernels_source} CONTENT "#include <shunt/shunt.hpp>\n")
  add_library(shunt_kernels STATIC EXCLUDE_FROM_ALL ${shunt_kernels_source})
  add_library(shunt::kernels ALIAS shunt_kernels)
  target_link_libraries(shunt_kernels PUBLIC shunt::shunt)
  target_compile_definitions(shunt_kernels PRIVATE SHUNT_KERNELS_HERE
                                           INTERFACE SHUNT_KERNELS_ELSEWHERE)
  # Without optimization the kernels take gigabytes to compile, and run at a small part of their speed.
  target_compile_options(shunt_kernels PRIVATE
    $<$<NOT:$<CONFIG:Release,RelWithDebInfo,MinSizeRel>>:-O2>)
  set_target_properties(shunt_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
endif()
