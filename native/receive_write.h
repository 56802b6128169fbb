/* receive_write: what was let in of a batch, written to flannel0 and counted. For receive.c only.
 *
 * Owns the forms in which a packet is written: alone as it came, joined with others, as what its sender left to a card, and
 * packet by packet where flannel0 refuses more. It must not know who sent it.
 */
#ifndef UDPB_RECEIVE_WRITE_H
#define UDPB_RECEIVE_WRITE_H

#include "receive.h"

/* Writes the groups of the batch and begins a new one. Returns 0 or the error by which the TUN is gone; each packet of the
 * groups has been counted either way. */
int receive_write(struct receive *r);

#endif
