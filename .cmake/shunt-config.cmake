# find_package(shunt): shunt::shunt, header-only, and shunt::kernels, which compiles its kernels once.
include("${CMAKE_CURRENT_LIST_DIR}/shunt-targets.cmake")
set(shunt_target shunt::shunt)
include("${CMAKE_CURRENT_LIST_DIR}/cuda_standard.cmake")
unset(shunt_target)
include("${CMAKE_CURRENT_LIST_DIR}/shunt-kernels.cmake")
