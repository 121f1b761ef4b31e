# The OpenSSF "Compiler Options Hardening Guide for C and C++" set, as far as gcc 12 has it.
# tools/check_hardening verifies the built ELF.
add_compile_options(-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong
                    -fstack-clash-protection -ftrivial-auto-var-init=zero -fPIE
                    -fno-delete-null-pointer-checks -Wformat -Wformat=2 -Werror=format-security)
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  add_compile_options(-fcf-protection=full)
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
  add_compile_options(-mbranch-protection=standard)
endif()
add_link_options(-pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,nodlopen -Wl,--as-needed)
