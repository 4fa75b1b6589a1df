# find_package(shunt): shunt::shunt, header-only, and shunt::kernels, which compiles its kernels once.
include(${CMAKE_CURRENT_LIST_DIR}/shunt-targets.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/shunt-kernels.cmake)
