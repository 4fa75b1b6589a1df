# shunt_add_kernels(name header target): a static library of what SHUNT_KERNELS_HERE compiles of a public
# header, once, instead of in each file that includes it; it links `target`, which brings the headers.
function(shunt_add_kernels name header target)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include <shunt/${header}.hpp>\n")
  add_library(${name} STATIC EXCLUDE_FROM_ALL ${source})
  target_link_libraries(${name} PUBLIC ${target})
  target_compile_definitions(${name} PRIVATE SHUNT_KERNELS_HERE INTERFACE SHUNT_KERNELS_ELSEWHERE)
endfunction()

# shunt::kernels: shunt::shunt with the host kernels and the layer compiled once, with the project's own
# flags. Units of another -march or SHUNT_WIDEST_REGION do not link with it.
if(NOT TARGET shunt_kernels)
  shunt_add_kernels(shunt_kernels shunt shunt::shunt)
  add_library(shunt::kernels ALIAS shunt_kernels)
  # Without optimization the kernels take gigabytes to compile, and run at a small part of their speed.
  target_compile_options(shunt_kernels PRIVATE
    $<$<NOT:$<CONFIG:Release,RelWithDebInfo,MinSizeRel>>:-O2>)
  set_target_properties(shunt_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
endif()
