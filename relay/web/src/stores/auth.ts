/** Who is logged in. */
import { defineStore } from "pinia";
import { ref } from "vue";

import { api, ApiError, setCsrfToken } from "@/api/client";
import type { User } from "@/api/types";

export const useAuth = defineStore("auth", () => {
  const user = ref<User | null>(null);
  const expiresAt = ref<number | null>(null);
  /** False until the first answer; a page that fails to reach the relay must not look logged out. */
  const isKnown = ref(false);
  /** Set when the relay could not be asked. */
  const error = ref<ApiError | null>(null);

  async function load(): Promise<void> {
    try {
      const me = await api.me();
      user.value = me.user;
      expiresAt.value = me.session_expires_at;
      setCsrfToken(me.csrf_token);
      isKnown.value = true;
      error.value = null;
    } catch (failure) {
      if (!(failure instanceof ApiError)) throw failure;
      if (failure.status === 401) {
        clear();
        error.value = null;
      } else {
        error.value = failure;
      }
    }
  }

  async function loginByLink(token: string): Promise<void> {
    await api.loginByLink(token);
    await load();
  }

  async function logout(): Promise<void> {
    await api.logout();
    clear();
  }

  function clear(): void {
    user.value = null;
    expiresAt.value = null;
    setCsrfToken(null);
    isKnown.value = true;
  }

  return { user, expiresAt, isKnown, error, load, loginByLink, logout, clear };
});
