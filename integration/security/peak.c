/* peak FILE PROGRAM ARGUMENTS: runs the program, writes to FILE the most memory, in KiB, that it or one of its
   descendants had resident, and ends as it did. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
  int status = 0;
  struct rusage usage;
  FILE *out;
  pid_t child;
  if (count < 3) return 125;
  child = fork();
  if (child == 0) {
    execvp(words[2], words + 2);
    _exit(127);
  }
  if (child < 0 || wait4(child, &status, 0, &usage) != child) return 125;
  out = fopen(words[1], "w");
  if (!out || fprintf(out, "%ld", usage.ru_maxrss) < 1 || fclose(out)) return 125;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
