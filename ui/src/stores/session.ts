/* Who is signed in, in this browser. */
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'
import * as access from '@/api/access'
import { setCsrf } from '@/api/client'
import { roles, type Role, type Session } from '@/api/types'

export const useSession = defineStore('session', () => {
  const session = ref<Session | null>(null)
  /* Whether the hub was asked yet. */
  const known = ref(false)
  const user = computed(() => session.value?.user ?? null)

  function accept(next: Session | null): void {
    session.value = next
    known.value = true
    setCsrf(next?.csrf ?? '')
  }
  async function load(): Promise<void> {
    accept(await access.getSession())
  }
  async function signIn(username: string, password: string): Promise<void> {
    accept(await access.signIn(username, password))
  }
  async function signOut(): Promise<void> {
    await access.signOut()
    accept(null)
  }
  /* Whether the user's role includes the given one. */
  function can(role: Role): boolean {
    return user.value !== null && roles.indexOf(user.value.role as Role) >= roles.indexOf(role)
  }
  return { user, known, accept, load, signIn, signOut, can }
})
