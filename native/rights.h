/* rights: giving up what this process may do and does not need. Must not know what it needs. */
#ifndef RIGHTS_H
#define RIGHTS_H

#include <stdint.h>

/* As udpb_limit_rights. */
int rights_limit(uint64_t capabilities);

#endif
