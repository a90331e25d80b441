/* The safety of claims, exhaustively within small bounds: PROCS processes, EPOCHS epochs, SEGS segments each.

   Left out is all that only delays or hastens: clocks, silence, requests, answers, ends. A process may claim the
   next epoch at any moment and stand still between any two steps, which is more than what every timing allows. Restarts
   are further processes. A create may arrive late: it is a step of its own, behind a process that has gone on.

   What a claim's owner restores is the line: segments of the parent up to the number it saw, and so on down.
   A transaction is (epoch it was written in, its place there); the line holds those of epoch e up to upto[e].

   spin -a handover.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan -m100000
   -DNO_LOOK: an owner reports without looking at the next claim. -DLIST_FIRST: the listing is read before the claim.
   -DANY_PARENT: a start may name a later epoch. Each must end in an assertion violated. */

#ifndef PROCS
#define PROCS 3
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif
#ifndef SEGS
#define SEGS 2
#endif

byte claims;                       /* the highest claimed epoch; 0: none */
bool started[EPOCHS + 2];          /* start.json is there */
byte parent[EPOCHS + 2];           /* what it names: the epoch ... */
byte seen[EPOCHS + 2];             /* ... and how many of that epoch's segments it continues behind */
byte stored[EPOCHS + 2];           /* segments in an epoch's folder */
byte reported[EPOCHS + 2];         /* how many of them were reported durable */

inline highest_start(h) {
  h = 0;
  k = 1;
  do
  :: k <= EPOCHS -> if :: started[k] -> h = k :: else fi; k++
  :: else -> break
  od
}

/* Everything reported is on the line that begins at the highest start. */
inline check() {
  d_step {
    highest_start(h);
    k = 1;
    do
    :: k <= EPOCHS -> upto[k] = 0; k++
    :: else -> break
    od;
    if :: h > 0 -> upto[h] = stored[h] :: else fi;
    do
    :: h > 0 && parent[h] > 0 && parent[h] < h ->
         upto[parent[h]] = seen[h];
         h = parent[h]
    :: else -> break
    od;
    k = 1;
    do
    :: k <= EPOCHS ->
         assert(reported[k] <= upto[k]);
         assert(!started[k] || parent[k] < k);    /* else every reader refuses the history */
         k++
    :: else -> break
    od;
    k = 0; h = 0
  }
}

active [PROCS] proctype instance() {
  byte mine, head, saw, k, h;
  byte upto[EPOCHS + 2];
  bool owned;

again:
  atomic { mine = claims + 1; if :: mine > EPOCHS -> goto out :: else fi };
#ifdef LIST_FIRST
  d_step { highest_start(head); saw = (head > 0 -> stored[head] : 0) };
#endif
  /* create with If-None-Match, settled by reading back: it is ours, or another's. */
  atomic {
    if
    :: claims < mine -> claims = mine; owned = true
    :: else -> owned = false
    fi
  };
  if
  :: !owned -> goto again
  :: owned -> skip                 /* goes on */
  :: owned -> goto out             /* dies behind its claim, or never learns of it */
  fi;
#ifndef LIST_FIRST
  d_step { highest_start(head); saw = (head > 0 -> stored[head] : 0) };
#endif
#ifndef ANY_PARENT
  if :: head >= mine -> goto again :: else fi;
#endif
  atomic { parent[mine] = head; seen[mine] = saw; started[mine] = true; check() };
  if :: claims > mine -> goto fenced :: else fi;
  do
  :: stored[mine] < SEGS ->
       stored[mine]++;             /* the upload, which may be the last thing that happens */
       if
#ifndef NO_LOOK
       :: claims > mine -> goto fenced
       :: claims == mine -> skip
#else
       :: skip
#endif
       :: goto out
       fi;
       atomic { reported[mine] = stored[mine]; check() }   /* a step behind the look: anything may lie between */
  :: goto again                    /* the life ends, another begins */
  od;
fenced:
  goto again;
out:
  atomic { check() }
}
